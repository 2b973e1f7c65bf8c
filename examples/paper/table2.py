"""Table 2: keypoints carried from one photo to another, through the template and by embeddings (PCK at 0.1).

python table2.py --data DENSEPOSE_LVIS --pf-pascal PF_PASCAL
python table2.py --dataset rigged --data RIGGED

The models are those of Table 1. PF_PASCAL holds test_pairs_pf_pascal.csv and the photos in JPEGImages/. On
rigged the keypoints are the annotated points of the same vertex in two photos.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

from common import Animal, Options, parse
from tables import Row, table, write

VOC_NUMBERS = {"cow": "10", "horse": "13", "sheep": "17"}
PAPER = """| paper | supervision | cow | sheep | horse | average |
|---|---|---|---|---|---|
| Rigid-CSM | manual | 28.5 | 31.5 | 42.1 | 34.0 |
| A-CSM | manual | 29.2 | 39.0 | 44.6 | 37.6 |
| CSE | manual | 51.5 | 46.3 | 59.2 | 52.3 |
| Rigid-CSM | none | 26.3 | 24.7 | 31.2 | 27.4 |
| A-CSM | none | 26.3 | 28.6 | 32.9 | 29.3 |
| SHIC image to image | none | 69.1 | 55.9 | 58.7 | 61.2 |
| SHIC image to template to image | none | 73.5 | 73.5 | 63.1 | 70.0 |
"""


def keypoints(animal: Animal) -> Path:
    """A keypoint file of the annotated photos, with the vertices as the keypoints' names."""
    images = {
        name: {"points": {str(vertex): [x, y] for x, y, vertex in points}}
        for name, points in animal.points().items()
    }
    target = animal.work / "keypoints.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps({"images": images}))
    return target


def pascal(folder: str | None) -> tuple[Path, Path]:
    """The pairs and the photos of PF-PASCAL."""
    if not folder:
        sys.exit("name the folder of PF-PASCAL with --pf-pascal; README.md says what is in it")
    return Path(folder).resolve() / "test_pairs_pf_pascal.csv", Path(folder).resolve() / "JPEGImages"


def pascal_list(file: Path, folder: Path, animal: Animal) -> Path:
    """A list of the photos in the pairs of a class, which the csv gives by its number or its name."""
    with open(file, newline="", encoding="utf-8-sig") as stream:
        rows = [
            row
            for row in csv.DictReader(stream)
            if row["class"].strip() in (animal.name, VOC_NUMBERS.get(animal.name))
        ]
    names = {Path(row[key]).name for row in rows for key in ("source_image", "target_image")}
    target = animal.work / "pascal.txt"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("".join(f"{folder / name}\n" for name in sorted(names)))
    return target


def main() -> None:
    options = parse(
        __doc__,
        classes="cow,sheep,horse",
        **{"pf-pascal": {"help": "folder of PF-PASCAL, for densepose-lvis"}},
    )
    rows = {
        "position": Row("position in the box alone"),
        "zero-shot": Row("zero-shot, through the template"),
        "embedding": Row("trained, by embeddings", "61.2"),
        "template": Row("trained, through the template", "70.0"),
        "probability": Row("the same, to the pixel where the vertex is likeliest"),
        "similarity": Row("the same, to the pixel with the most similar embedding"),
    }
    for animal in options.animals:
        found = scores(animal, options)
        for name, row in rows.items():
            row.found[animal.name] = found[name]
    text = table(list(rows.values()), options.classes, key="pck", scale=100)
    where = (
        "PF-PASCAL"
        if options.dataset == "densepose-lvis"
        else "annotated points of the same vertex in two photos"
    )
    caption = (
        f"Share of keypoints nearer than 0.1 times the longer side of the photo, in percent: "
        f"{where}. {options.settings}"
    )
    write(options, "table2", "Table 2", f"{text}\n{caption}\n\nThe paper's figures, on PF-PASCAL:\n\n{PAPER}")


def scores(animal: Animal, options: Options) -> dict[str, list[dict]]:
    """The scores of one class by row."""
    pairs: tuple
    if options.dataset == "rigged":
        pairs, photos = ("--keypoints", keypoints(animal)), animal.test
        zero_shot = animal.zero_shot()
    else:
        file, photos = pascal(options.given.pf_pascal)
        pairs = ("--keypoints", file, "--class", animal.name)
        zero_shot = animal.pseudo_gt(where=pascal_list(file, photos, animal), name="pgt-pascal")
    position = ("--baseline", "position", "--images", photos)
    found: dict[str, list[dict]] = {
        "position": [animal.eval(animal.work / "pck-position.json", "pck", *position, *pairs)],
        "zero-shot": [animal.eval(animal.work / "pck-zero-shot.json", "pck", zero_shot, *pairs)],
    }
    ways = {
        "embedding": ("--via", "embedding"),
        "template": (),
        "probability": ("--target", "probability"),
        "similarity": ("--target", "embedding"),
    }
    models = [animal.trained(seed, *options.train) for seed in options.seeds]
    for name, how in ways.items():
        words = ("--images", photos, *how, *pairs)
        found[name] = [
            animal.eval(model.with_name(f"pck-{name}.json"), "pck", model, *words) for model in models
        ]
    return found


if __name__ == "__main__":
    main()
