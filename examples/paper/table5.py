"""Table 5: shaded renders instead of normals, and other features, for the pseudo-ground truth.

python table5.py --dataset rigged --data RIGGED --extractor vit:FOLDER

--extractor takes the place of the data set's own; --other is the one of the last row (the paper's: DINO
  alone).
"""

from __future__ import annotations

from common import parse, slug
from tables import ALL, Ablation, ablate

STYLELESS = {"silhouette"}  # sees outlines alone, and they are the same in every style


def main() -> None:
    extractor = {"help": "extractor of all rows but the last; default: the data set's own"}
    other = {"help": "extractor of the last row; default: dinov2, or on rigged none"}
    options = parse(__doc__, small=True, extractor=extractor, other=other)
    given, words = options.given, options.recipe.pseudo_gt
    own = words[words.index("--extractor") + 1] if "--extractor" in words else "sd-dino"
    changed = ("--extractor", given.extractor) if given.extractor else ()
    name = slug(changed) + "-" if changed else ""
    normals = (
        Ablation(f"normals ({given.extractor})", "24.9", f"{name}all", pseudo_gt=changed) if changed else ALL
    )
    styleless = (given.extractor or own).partition(",")[0] in STYLELESS
    note = "the same by construction: this extractor does not see style" if styleless else ""
    shaded = (*changed, "--style", "shaded")
    rows = [
        normals,
        Ablation("shaded renders instead of normals", "25.2", f"{name}shaded", pseudo_gt=shaded, note=note),
    ]
    last = given.other or ("dinov2" if options.dataset == "densepose-lvis" else "")
    note = "" if last else "not measured: name an extractor with --other"
    alone = ("--extractor", last)
    rows.append(
        Ablation(
            f"features of {last} alone" if last else "other features",
            "25.4",
            f"{slug(alone)}-all",
            alone,
            note=note,
        )
    )
    ablate(
        options,
        "table5" + (f"-{slug((given.extractor,))}" if changed else ""),
        "Table 5: renders and features",
        rows,
    )


if __name__ == "__main__":
    main()
