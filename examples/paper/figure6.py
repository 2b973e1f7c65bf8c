"""Figure 6: a texture over photos, by the zero-shot map and by the trained one.

python figure6.py --dataset rigged --data RIGGED
"""

from __future__ import annotations

from pathlib import Path

from common import Animal, keep, kept, parse, shic
from tables import gallery


def textured(animal: Animal, maps: Path) -> Path:
    """The folder of the photos in a maps file with a texture laid over them."""
    target = maps.with_suffix("")
    target.mkdir(exist_ok=True)
    words = ("remap", maps, "--texture", "checker", "--template", animal.template())
    done = target / "done"
    if not kept(done, words):
        keep(done, words)
        shic(*words, "-o", target, "--overwrite")
        done.touch()
    return target


def main() -> None:
    options, pictures = parse(__doc__), []
    for animal in options.animals:
        model, chosen = animal.trained(options.seeds[0], *options.train), animal.some(4)
        few = animal.work / "figure6.txt"
        few.write_text("".join(f"{path}\n" for path in chosen))
        zero_shot = animal.pseudo_gt(where=few, name="figure6-zero-shot")
        trained = animal.predict(model, [few], animal.work / "figure6-trained.h5", "--no-pictures")
        folders = [textured(animal, maps) for maps in (zero_shot, trained)]
        pictures += [
            (animal.name, path, *(folder / f"{path.stem}.remap.png" for folder in folders)) for path in chosen
        ]
    gallery(
        options,
        "figure6",
        "Figure 6: a texture over photos",
        ("class", "photo", "zero-shot", "trained"),
        pictures,
    )


if __name__ == "__main__":
    main()
