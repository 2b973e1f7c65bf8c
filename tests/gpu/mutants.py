"""Whether the pretended GPU catches mistakes: each mutant leaves one tensor on the CPU.

python tests/gpu/mutants.py          # some minutes; status 1 if a mutant lives, or fits the code no more
python tests/gpu/mutants.py 3 7      # these alone
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMMANDS, GRID = "test_commands.py", "test_coarse_to_fine.py"
# the file, what is there, what the mutant has in its place, the tests to run, which of them
MUTANTS = [
    (
        "learning/similarity.py",
        "dtype=torch.long, device=queries.device",
        "dtype=torch.long",
        COMMANDS,
        "pseudo-gt",
    ),
    (
        "learning/coarse_to_fine.py",
        "torch.from_numpy(array).to(device)",
        "torch.from_numpy(array)",
        GRID,
        "grid",
    ),
    (
        "learning/model_file.py",
        "canonical.to(device).eval()",
        "canonical.eval()",
        COMMANDS,
        "predict and pointwise",
    ),
    (
        "surface/geodesic_median.py",
        "distance.argmin(0)).to(device)",
        "distance.argmin(0))",
        COMMANDS,
        "predict and unet",
    ),
    (
        "surface/geodesic_median.py",
        "(between).float().to(device)",
        "(between).float()",
        COMMANDS,
        "predict and unet",
    ),
    (
        "surface/surface_points.py",
        "torch.from_numpy(array).to(self.device)",
        "torch.from_numpy(array)",
        COMMANDS,
        "remap",
    ),
    ("surface/heat_gpu.py", "masses.sum()).to(device)", "masses.sum())", COMMANDS, "template and prep"),
    (
        "surface/heat_gpu.py",
        "dtype=torch.float64, device=device)",
        "dtype=torch.float64)",
        COMMANDS,
        "template and prep",
    ),
    ("stages/render.py", "dtype=torch.int64, device=device)", "dtype=torch.int64)", COMMANDS, "render"),
    (
        "stages/render.py",
        "dtype=torch.uint8, device=colour.device)",
        "dtype=torch.uint8)",
        COMMANDS,
        "render",
    ),
    (
        "parts/extractors/picture.py",
        "masks.to(self.device, torch.float32)",
        "masks.to(torch.float32)",
        COMMANDS,
        "predict and unet",
    ),
    (
        "parts/extractors/silhouette.py",
        "masks.to(self.device, torch.float32)",
        "masks.to(torch.float32)",
        COMMANDS,
        "pseudo-gt and not topk",
    ),
    (
        "parts/extractors/vit.py",
        "images.to(self.device, torch.float32)",
        "images.to(torch.float32)",
        COMMANDS,
        "features and vit",
    ),
]


def survives(number: int) -> str:
    """What is wrong where mutant `number` is not caught, else nothing."""
    file, old, new, tests, chosen = MUTANTS[number]
    with tempfile.TemporaryDirectory() as folder:
        for name in ("shic_cli", "tests"):
            shutil.copytree(ROOT / name, Path(folder) / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", folder)
        path = Path(folder) / "shic_cli" / file
        text = path.read_text()
        if old not in text:
            return f"{file} has no {old!r} any more"
        path.write_text(text.replace(old, new, 1))
        words = [
            "-m",
            "pytest",
            "-q",
            "-x",
            f"tests/gpu/{tests}",
            "-k",
            f"not real and not apple and ({chosen})",
        ]
        env = {**os.environ, "PYTHONPATH": folder}
        done = subprocess.run([sys.executable, *words], cwd=folder, env=env, capture_output=True, text=True)
    if done.returncode == 1 and any(fault in done.stdout for fault in ("Mixed", "but its device is")):
        return ""
    return f"pytest ended with {done.returncode}: {done.stdout[-300:]}"


def main() -> int:
    """Try the mutants that are named, or all."""
    faults = 0
    for number in map(int, sys.argv[1:]) if sys.argv[1:] else range(len(MUTANTS)):
        fault = survives(number)
        faults += bool(fault)
        sys.stderr.write(f"{number} {MUTANTS[number][0]}, {MUTANTS[number][4]}: {fault or 'caught'}\n")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
