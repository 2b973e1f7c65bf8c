"""How many small changes of the code its tests notice: `pip install cosmic-ray; python tests/mutation.py`.

For each module of GUARDS, or those that are named, a random sample of places is changed one at a time by the
operators of cosmic-ray (https://cosmic-ray.readthedocs.io), and the tests that guard the module run until the
first fails. `--named` tries the changes of `tests/mutants.toml` in place of a sample: each of them once went
unnoticed, or breaks a promise of docs/results/promises.md. `--promises` tries the latter alone. That file
also lists the equivalents, changes that no test can notice, with the reason of each; they don't count. The
project is copied to a temporary folder first, and the copy is changed. Prints one JSON object; exit status 1
when fewer than 95 % of the changes were noticed.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
LISTED = Path(__file__).with_name("mutants.toml")
# What the tests import, loaded once before the runs are forked; nothing of the project.
HEAVY = (
    *("torch", "scipy.spatial", "scipy.stats", "scipy.sparse.csgraph", "h5py", "cv2", "PIL.Image", "trimesh"),
    *("pytest", "rich.console", "av", "filelock", "click"),
)
ENOUGH = 0.95
NOT_COPIED = shutil.ignore_patterns(".git", "__pycache__", "*.egg-info", ".venv", "shared", "site", ".*cache")
PASS: dict[str, float] = {}  # tests that pass without a change -> seconds that they took, with others
# Module -> the tests that guard it, those first that are quick and notice most.
GUARDS = {
    "evaluation/baselines.py": "evaluation/test_baselines.py cli/test_eval.py",
    "evaluation/calibration.py": "evaluation/test_calibration.py",
    "evaluation/external.py": "evaluation/test_external.py",
    "evaluation/geodesic.py": "evaluation/test_geodesic.py evaluation/test_external.py",
    "evaluation/gps.py": "evaluation/test_gps.py",
    "evaluation/pck.py": "evaluation/test_pck.py cli/test_eval.py",
    "evaluation/pck_targets.py": "cli/test_eval.py",
    "evaluation/report.py": "evaluation/test_report.py",
    "files/annotations.py": "files/test_annotations.py evaluation/test_geodesic.py evaluation/test_gps.py",
    "files/arrays.py": "files/test_layouts.py files/test_hdf5.py files/test_shards.py",
    "files/atomic.py": "files/test_atomic.py files/test_locks.py cli/test_streams_and_targets.py"
    " pipeline/test_windows.py::test_a_target_that_another_program_has_open_is_waited_for",
    "files/catalogue.py": "files/test_catalogue.py cli/test_catalogue.py",
    "files/checks.py": "files/test_checks.py files/test_layouts.py learning/test_model_file.py",
    "files/hdf5.py": "files/test_hdf5.py files/test_layouts.py",
    "files/items.py": "files/test_layouts.py files/test_hdf5.py files/test_shards.py files/test_locks.py",
    "files/join.py": "files/test_shards.py",
    "files/keypoints.py": "files/test_keypoints.py",
    "files/layouts.py": "files/test_layouts.py files/test_hdf5.py",
    "files/locks.py": "files/test_locks.py",
    "files/mask_sources.py": "files/test_mask_sources.py files/test_masks.py",
    "files/masks.py": "files/test_masks.py files/test_mask_sources.py",
    "files/names.py": "files/test_annotations.py evaluation/test_geodesic.py files/test_keypoints.py",
    "files/photo_lists.py": "files/test_photos.py files/test_photo_kinds.py files/test_video.py",
    "files/photos.py": "files/test_photos.py files/test_photo_kinds.py files/test_video.py",
    "files/pictures.py": "files/test_pictures.py",
    "files/segmentations.py": "files/test_segmentations.py",
    "files/shards.py": "files/test_shards.py",
    "files/video.py": "files/test_video.py files/test_photos.py",
    "learning/losses.py": "learning/test_losses.py",
    "learning/model_file.py": "learning/test_model_file.py",
    "learning/similarity.py": "learning/test_similarity.py",
}


@dataclass(frozen=True)
class Mutant:
    """A changed module: the line that was changed, before and after, the whole text, and the tests to run."""

    file: str
    number: int
    old: str
    new: str
    text: str
    tests: tuple[str, ...]

    @property
    def key(self) -> tuple[str, str, str]:
        """What names the change in the list."""
        return self.file, self.old, self.new


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "modules", nargs="*", help="files below shic_cli, as files/hdf5.py; all when none is named"
    )
    parser.add_argument("--sample", type=int, default=15, help="changes of each module  [default: 15]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--named", action="store_true", help="the changes of tests/mutants.toml alone")
    parser.add_argument("--promises", action="store_true", help="of these, the ones that break a promise")
    given = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # half of the time of a short run
    for name in HEAVY:
        importlib.import_module(name)
    listed = tomllib.loads(LISTED.read_text())
    equivalent = {(each["file"], each["old"], each["new"]) for each in listed["equivalent"]}
    chosen = [each for each in listed["named"] if "promise" in each or not given.promises]
    is_named, of_list = given.named or given.promises, dict.fromkeys(each["file"] for each in chosen)
    modules = given.modules or list(of_list if is_named else GUARDS)
    with tempfile.TemporaryDirectory(prefix="shic-mutation-") as folder:
        copy = Path(shutil.copytree(ROOT, Path(folder) / "project", ignore=NOT_COPIED))
        found = {}
        for module in modules:
            path = copy / "shic_cli" / module
            if is_named:
                mutants = [named(path, each) for each in chosen if each["file"] == module]
            else:
                mutants = sample(path, module, given.sample, given.seed)
            mutants = [mutant for mutant in mutants if mutant.key not in equivalent]
            if mutants:
                found[module] = try_all(copy, path, mutants)
                sys.stderr.write(f"{module}: {found[module]['killed']} of {len(mutants)}\n")
    total = sum(each["mutants"] for each in found.values())
    killed = sum(each["killed"] for each in found.values())
    result = {"mutants": total, "killed": killed, "share": round(killed / max(total, 1), 3), "modules": found}
    sys.stdout.write(json.dumps(result, indent=2) + "\n")
    sys.exit(killed < ENOUGH * total)


def sample(path: Path, module: str, size: int, seed: int) -> list[Mutant]:
    """Mutants of the file, at most `size`: places are drawn, and at each of them one of its changes."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator, operator_names

    text, chance = path.read_text(), random.Random(f"{module} {seed}")
    nodes = list(ast_nodes(get_ast(text)))
    places: dict[tuple[int, int], list[tuple[type, int]]] = {}
    for operator in sorted({get_operator(name) for name in operator_names()}, key=lambda kind: kind.__name__):
        if operator.arguments():
            continue
        spots = [spot for node in nodes for spot in operator().mutation_positions(node)]
        for occurrence, (start, _) in enumerate(spots):
            places.setdefault(start, []).append((operator, occurrence))
    order, mutants, original = sorted(places), [], meaning(text)
    chance.shuffle(order)
    for place in order:
        operator, occurrence = chance.choice(places[place])
        try:
            changed = mutate_code(text, operator(), occurrence)
        except AttributeError:  # cosmic-ray 8.7 can't change `except module.Error`
            continue
        if changed and meaning(changed) not in ("", original):
            mutants.append(of_texts(module, text, changed))
        if len(mutants) == size:
            break
    return mutants


def meaning(text: str) -> str:
    """The program in `text` without what no test can see; empty if it is none.

    That is annotations, imports for them, `is` in place of `==` for a text, and the keywords `strict` and
    `frozen`, which only raise where the program is wrong.
    """
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return ""
    for node in ast.walk(tree):
        for name in ("annotation", "returns"):
            if hasattr(node, name):
                setattr(node, name, ast.Constant(None) if isinstance(node, ast.AnnAssign) else None)
        if isinstance(node, ast.Call):
            node.keywords = [each for each in node.keywords if each.arg not in ("strict", "frozen")]
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.test = ast.Name("TYPE_CHECKING")
        elif isinstance(node, ast.Compare) and any(_is_text(each) for each in node.comparators):
            same = {ast.Is: ast.Eq, ast.IsNot: ast.NotEq}
            node.ops = [same.get(type(each), type(each))() for each in node.ops]
    return ast.dump(tree)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def of_texts(file: str, old: str, new: str) -> Mutant:
    """The mutant that turns the text `old` into `new`, with the first line in which they differ."""
    before, after = old.splitlines(), new.splitlines()
    number = next(
        (i for i, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1]), len(after) - 1
    )
    tests = tuple(GUARDS[file].split())
    return Mutant(file, number + 1, before[number].strip(), after[number].strip(), new, tests)


def named(path: Path, listed: dict[str, str]) -> Mutant:
    """A mutant of the list; ValueError if its old text is not once in the file."""
    text, old, new = path.read_text(), listed["old"], listed["new"]
    if text.count(old) != 1:
        raise ValueError(f"{listed['file']}: holds {old!r} {text.count(old)} times")
    return Mutant(listed["file"], 0, old, new, text.replace(old, new), tuple(listed["tests"].split()))


def try_all(copy: Path, path: Path, mutants: list[Mutant]) -> dict:
    """Run the tests on each mutant: how many were noticed, and those that were not."""
    original, start, survivors = path.read_text(), time.monotonic(), []
    tests = tuple(
        test for test in dict.fromkeys(sum((each.tests for each in mutants), ())) if test not in PASS
    )
    if tests and run(copy, tests, 1200.0):
        raise RuntimeError(f"{path.name}: the tests fail without a change: {' '.join(tests)}")
    seconds = time.monotonic() - start
    PASS.update(dict.fromkeys(tests, seconds))
    for mutant in mutants:
        path.write_text(mutant.text)
        if not run(copy, mutant.tests, 60 + 5 * sum(PASS[test] for test in mutant.tests)):
            survivors.append({"line": mutant.number, "old": mutant.old, "new": mutant.new})
            sys.stderr.write(f"{mutant.file}:{mutant.number} survives\n  - {mutant.old}\n  + {mutant.new}\n")
    path.write_text(original)
    return {"mutants": len(mutants), "killed": len(mutants) - len(survivors), "survivors": survivors}


def run(copy: Path, tests: tuple[str, ...], limit: float) -> bool:
    """Whether a test fails in a forked process, or it takes more than `limit` seconds."""
    pid = os.fork()
    if not pid:
        os.setpgid(0, 0)
        os.chdir(copy)
        quiet = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(quiet, stream)
        sys.path[:0] = [str(copy), str(copy / "tests")]
        os.environ["PYTHONPATH"] = str(copy)
        import pytest

        os._exit(
            int(pytest.main([*(f"tests/{test}" for test in tests), "-x", "-p", "no:cacheprovider"]) != 0)
        )
    ended, status, end = 0, 0, time.monotonic() + limit
    while not ended and time.monotonic() < end:
        time.sleep(0.02)
        ended, status = os.waitpid(pid, os.WNOHANG)
    if ended:
        return status != 0
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return True


if __name__ == "__main__":
    main()
