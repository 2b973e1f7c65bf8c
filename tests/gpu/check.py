"""Everything that only a GPU can show, in at most 20 minutes: tests, benchmarks at full size, large models
with random weights, and the default pipeline with seconds and peak memory a stage.

Results go into one JSON, which is written after every part. The same line goes on: parts that are done are
not done again, and one that fails costs that part alone. At the end the rows for the README's table are
printed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[2]
FACTS = """
import json, os, platform, torch
facts = {"python": platform.python_version(), "torch": torch.__version__, "cores": os.cpu_count()}
facts["device"] = "cpu"
if torch.cuda.is_available():
    card = torch.cuda.get_device_properties(0)
    facts |= {"device": card.name, "capability": f"{card.major}.{card.minor}", "cuda": torch.version.cuda}
    facts["memory_gb"] = round(card.total_memory / 1e9, 1)
print(json.dumps(facts))
"""
STAGE = """
import json, sys, time
from timing import peak_memory
from shic_cli.cli import main
start = time.perf_counter()
try:
    main(sys.argv[2:])
except SystemExit as ended:
    if ended.code:
        raise
with open(sys.argv[1], "w") as file:
    json.dump({"seconds": round(time.perf_counter() - start, 2), **peak_memory()}, file)
"""


class Failed(Exception):
    """A part failed; the message is the end of what it said."""


@dataclass
class Check:
    """One run: its settings, its folder, when it has to end, and the results so far."""

    options: argparse.Namespace
    folder: Path
    end: float
    results: dict[str, Any]

    def save(self) -> None:
        """Write the results; a reader never meets half a file."""
        partial = self.folder / "check.json.partial"
        partial.write_text(json.dumps(self.results, indent=1) + "\n")
        partial.replace(self.folder / "check.json")

    def run(self, *words: str | Path, limit: float, inside: Path = ROOT) -> str:
        """What a Python process prints; Failed if it fails or takes more than `limit` seconds, or more than
        are left.
        """
        paths = [ROOT, ROOT / "tests", self.folder / "site", os.environ.get("PYTHONPATH", "")]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, filter(None, paths)))}
        line, left = [sys.executable, *map(str, words)], max(min(limit, self.end - time.monotonic()), 1)
        try:
            done = subprocess.run(
                line, cwd=inside, env=env, capture_output=True, text=True, timeout=left, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise Failed(f"was stopped after {left:.0f} s") from error
        if done.returncode:
            raise Failed((done.stdout + done.stderr)[-3000:])
        return done.stdout

    def pytest(self, *words: str | Path, limit: float) -> dict[str, Any]:
        """How the tests went and the rows that benchmarks measured; these are kept where a test fails too."""
        log, rows = self.folder / "tests.xml", self.folder / "rows.json"
        for file in (log, rows):
            file.unlink(missing_ok=True)
        full = [] if self.options.tiny else ["--full"]
        fault = ""
        try:
            self.run("-m", "pytest", "-q", *words, *full, "--junitxml", log, "--measured", rows, limit=limit)
        except Failed as error:
            fault = str(error)
        found: dict[str, Any] = {"rows": json.loads(rows.read_text()) if rows.exists() else []}
        if log.exists():
            cases = list(ElementTree.parse(log).getroot().iter("testcase"))
            ends = {
                kind: [case.get("name") for case in cases if case.find(kind) is not None] for kind in ENDS
            }
            found |= {"tests": len(cases), "skipped": len(ends["skipped"])}
            found["failed"] = ends["failure"] + ends["error"]
        return found | ({"fault": fault} if fault else {})


ENDS = ("failure", "error", "skipped")


def install(check: Check) -> dict[str, Any]:
    """Install the wheels; the pieces that `split` made of a large one are put together first."""
    wheels = check.options.wheels
    if wheels is None:
        return {"left_out": "no --wheels"}
    folder = check.folder / "wheels"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for piece in sorted(wheels.glob("*.whl.*")):
        with (folder / piece.name[: piece.name.index(".whl") + 4]).open("ab") as whole:
            whole.write(piece.read_bytes())
    files = [*wheels.glob("*.whl"), *folder.glob("*.whl")]
    pip = ("-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--upgrade")
    check.run(*pip, "--target", check.folder / "site", *files, limit=300)
    return {"wheels": sorted(file.name for file in files)}


def facts(check: Check) -> dict[str, Any]:
    """The machine: GPU, versions, cores."""
    return json.loads(check.run("-c", FACTS, limit=120))


def tests(check: Check) -> dict[str, Any]:
    """The tests that need CUDA, and every command on the GPU with host syncs counted."""
    return check.pytest("-m", "cuda", "--ignore=tests/benchmarks", "tests", limit=300)


def benchmarks(check: Check) -> dict[str, Any]:
    """The benchmarks on the GPU."""
    which = [] if check.options.tiny else ["-m", "cuda"]
    return check.pytest(*which, "--deselect", MODELS, "tests/benchmarks", limit=420)


def models(check: Check) -> dict[str, Any]:
    """sd-dino, DINOv2 small in batches of 64 and Stable Diffusion with a ControlNet, with random weights."""
    return check.pytest(MODELS, limit=300)


def pipeline(check: Check) -> dict[str, Any]:
    """The commands with their defaults on the photos of one class, one process each: seconds and peak memory.

    Stages that are done are kept, with their files, where a later one fails.
    """
    data, found = check.options.data, check.results.setdefault("pipeline", {}).get("stages", {})
    if data is None:
        return {"left_out": "no --data"}
    work = check.folder / "pipeline"
    if check.options.again:
        shutil.rmtree(work, ignore_errors=True)
    work.mkdir(exist_ok=True)
    for name, words in stages(data.resolve(), check.options).items():
        if name in found:
            continue
        told = work / f"{name}.json"
        check.run("-c", STAGE, told, *words, limit=600, inside=work)
        found[name] = json.loads(told.read_text())
        check.results["pipeline"]["stages"] = found
        check.save()
    return {"stages": found}


def stages(data: Path, options: argparse.Namespace) -> dict[str, list[str]]:
    """The command lines, by the name of the stage."""
    mesh = next(iter(sorted([*data.glob("*.obj"), *data.glob("*.ply")])), data / "mesh.obj")
    train, val, labels = data / "train/images", data / "val/images", data / "val/annotations.json"
    lines: dict[str, list[Any]] = {
        "template": ["template", "prep", mesh, "-o", "template.h5", "--overwrite"],
        "render": ["render", "-o", "views.h5", "--overwrite"],
        "pseudo-gt": ["pseudo-gt", train, "-o", "pgt.h5"],
        "synth": ["synth", "--generator", "plain", "--number", options.pictures, "-o", "synth.h5"],
        "train": ["train", "pgt.h5", "synth.h5", "-o", "model.safetensors"],
        "predict": ["predict", val, "--model", "model.safetensors", "-o", "val.maps.h5"],
    }
    if options.tiny:
        lines = {name: [*words, *QUICK.get(name, "").split()] for name, words in lines.items()}
    else:
        lines = {name: [*words, "--device", "cuda"] for name, words in lines.items()}
    if labels.exists():
        lines["eval"] = ["eval", "geodesic", "val.maps.h5", "--annotations", labels]
    return {name: list(map(str, words)) for name, words in lines.items()}


QUICK = {
    "template": "--vertices 300 --eigenvectors 16",
    "render": "--azimuths 4 --elevations 0 --size 64",
    "pseudo-gt": "--azimuths 4 --elevations 0",
    "train": "--epochs 1",
}
MODELS = "tests/benchmarks/test_speed_models.py"
PARTS: dict[str, Callable[[Check], dict[str, Any]]] = {
    part.__name__: part for part in (install, facts, tests, benchmarks, models, pipeline)
}


def rows(results: dict[str, Any]) -> list[str]:
    """The results as rows of a Markdown table."""
    device = results.get("facts", {}).get("device", "GPU")
    lines = [f"| what | goal | {device} |", "|---|---|---|"]
    for part in ("benchmarks", "models"):
        for row in results.get(part, {}).get("rows", []):
            lines.append(f"| {row['benchmark']}: {row['what']} | {row['goal']} | {row['measured']} |")
    for name, stage in results.get("pipeline", {}).get("stages", {}).items():
        memory = ", ".join(f"{stage[key]:.1f} GB of {word}" for key, word in MEMORY.items() if key in stage)
        lines.append(f"| the default pipeline: `{name}` | – | {stage['seconds']} s; {memory} |")
    return lines


MEMORY = {"memory": "memory", "gpu_memory": "the GPU's"}


def main() -> int:
    """Do the parts; status 1 if one failed or is left."""
    parser = argparse.ArgumentParser(description=re.sub(r"\s+", " ", __doc__ or ""))
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("gpu-check"), help="folder for check.json and the work"
    )
    parser.add_argument(
        "--wheels", type=Path, help="folder of wheels to install first, or of the pieces NAME.whl.aa, …"
    )
    parser.add_argument(
        "--data", type=Path, help="a class's folder: a mesh, train/ and val/ with images/ and masks/"
    )
    parser.add_argument(
        "--pictures", type=int, default=1500, help="how many pictures synth makes (default: 1500)"
    )
    parser.add_argument(
        "--minutes", type=float, default=20, help="when to stop; the same line goes on later (default: 20)"
    )
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS)
    )
    parser.add_argument("--again", action="store_true", help="do parts again that are done")
    parser.add_argument(
        "--tiny", action="store_true", help="on the CPU at tiny sizes: shows that this script works"
    )
    options = parser.parse_args()
    folder = options.output.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    before = folder / "check.json"
    results = json.loads(before.read_text()) if before.exists() else {}
    check = Check(options, folder, time.monotonic() + 60 * options.minutes, results)
    for name in options.only:
        do(check, name)
    sys.stdout.write("\n".join(rows(results)) + "\n")
    left = [name for name in PARTS if results.get(name, {}).get("state") != "done"]
    say(f"{before}: " + (f"not done: {', '.join(left)}; the same line goes on" if left else "all is done"))
    return bool(left)


def do(check: Check, name: str) -> None:
    """Do a part unless it is done, and keep what it found, or how it failed."""
    if check.results.get(name, {}).get("state") == "done" and not check.options.again:
        return
    if time.monotonic() > check.end:
        return
    say(f"{name} …")
    if check.options.again:
        check.results.pop(name, None)
    start = time.monotonic()
    try:
        found = PARTS[name](check)
    except (Failed, OSError, ValueError) as error:
        found = {**check.results.get(name, {}), "fault": str(error)}
    state = "failed" if found.get("fault") or found.get("failed") else "done"
    check.results[name] = {**found, "state": state, "part_seconds": round(time.monotonic() - start, 1)}
    check.save()
    say(f"{name}: {state}, {time.monotonic() - start:.0f} s {found.get('fault', '')}")


def say(text: str) -> None:
    """Write a line to stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
