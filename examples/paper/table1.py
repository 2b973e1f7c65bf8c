"""Table 1: the geodesic error of the whole method, of its own pseudo-ground truth, and of chance.

python table1.py --dataset rigged --data RIGGED
"""

from __future__ import annotations

from common import Animal, Options, parse, shic
from tables import CAPTION, Row, table, write

# The paper's figures by class; the average is over all seven.
CLASSES = ("horse", "sheep", "bear", "zebra", "cow", "elephant", "giraffe", "average")
CSE = (24.1, 32.0, 35.7, 24.9, 25.4, 26.1, 18.0, 26.6)
ZERO_SHOT = (37.2, 41.4, 48.2, 32.0, 32.3, 36.0, 26.3, 36.2)
SHIC = (23.3, 30.3, 33.0, 23.3, 22.7, 23.9, 18.1, 24.9)


def trained(animal: Animal, seed: int, options: Options) -> dict:
    """The score of a model of the whole method; its predictions are kept, and a report of them
    beside them.
    """
    model = animal.trained(seed, *options.train)
    predictions = animal.predict(model, [animal.test], model.with_name("predictions.h5"), "--no-pictures")
    page = model.with_name("report") / "index.html"
    if not page.exists():
        words = (
            "--annotations",
            animal.annotations,
            "--template",
            animal.template(),
            "--report",
            page.parent,
        )
        shic("eval", "geodesic", predictions, animal.zero_shot(), *words)
    return animal.score(predictions)


def papers(options: Options) -> str:
    """The paper's own table, for the classes that are scored here."""
    names = [*(name for name in options.classes if name in CLASSES), "average"]
    lines = ["| paper | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for label, figures in (("CSE, manual labels", CSE), ("zero-shot SD-DINO", ZERO_SHOT), ("SHIC", SHIC)):
        found = dict(zip(CLASSES, figures, strict=True))
        lines.append(f"| {label} | " + " | ".join(f"{found[name]:.1f}" for name in names) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    options = parse(__doc__)
    rows = [Row("chance"), Row("zero-shot, the pseudo-ground truth itself", "36.2"), Row("trained", "24.9")]
    for animal in options.animals:
        rows[0].found[animal.name] = [
            animal.eval(
                animal.work / "chance.json",
                "geodesic",
                "--baseline",
                "chance",
                "--annotations",
                animal.annotations,
            )
        ]
        rows[1].found[animal.name] = [animal.score(animal.zero_shot())]
        rows[2].found[animal.name] = [trained(animal, seed, options) for seed in options.seeds]
    text = table(rows, options.classes) + f"\n{CAPTION} {options.settings}\n"
    write(
        options, "table1", "Table 1", text + "\nThe paper's figures, on DensePose-LVIS:\n\n" + papers(options)
    )


if __name__ == "__main__":
    main()
