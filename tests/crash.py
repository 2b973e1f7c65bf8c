"""Long commands that are killed, stopped and short of space again and again, and what they leave: `python tests/crash.py --runs 50 train`.

A server that has imported everything forks a child for each run, which runs the command line. The child is stopped at a random moment
(fixed seeds), anywhere in the run or while the final file is put together, and the same line is given again until it is done. Then
the files must be those of an uninterrupted run, byte by byte, and no others may be there, and nothing that was kept may have been
computed again. Prints one JSON object; exit status 1 when a promise was broken.
"""

from __future__ import annotations

import argparse
import atexit
import ctypes
import json
import os
import random
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

PICTURES = 10
LINES: dict[str, tuple[str, ...]] = {
    "features": ("features", "imgs", "-o", "{out}/f.h5", "--extractor", "silhouette"),
    "pseudo-gt": ("pseudo-gt", "imgs", "-o", "{out}/p.h5", "--azimuths", "3", "--elevations", "10", "--extractor", "silhouette"),
    "synth": ("synth", "-o", "{out}/s.h5", "--number", str(PICTURES), "--size", "96"),
    "train": (
        *("train", "synth.h5", "-o", "{out}/m.safetensors", "--encoder", "picture", "--epochs", "5", "--batch", "4", "--points", "20"),
        *("--average", "0.9", "--seed", "3"),
    ),
    "predict": ("predict", "imgs", "-o", "{out}/predictions.maps.h5", "--remap", "grid"),
}
HOWS = ("kill", "term", "int", "limit", "disk")
STATUS = {"term": 128 + signal.SIGTERM, "int": 128 + signal.SIGINT}
SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "int": signal.SIGINT}
THERE = "is there already and is kept"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("commands", nargs="*", choices=[*LINES, []], help="which; all of them when none is named")
    parser.add_argument("--runs", type=int, default=50, help="runs to stop, for each command")
    parser.add_argument("--how", choices=HOWS, default="kill", help="limit: on a file's size; disk: a small file system (root only)")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    import_all()
    folder = Path(tempfile.mkdtemp(prefix="shic-crash-"))
    try:
        make_inputs(folder)
        found = {name: Trials(name, folder, given.how, given.seed).run(given.runs) for name in given.commands or LINES}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(found, indent=2))
    sys.exit(any(each["faults"] for each in found.values()))


def import_all() -> None:
    """What the commands import, once; before any of it has started a thread."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ["SHIC_WEIGHTS"] = ""
    import h5py
    import matplotlib.pyplot
    import warp

    from shic_cli import demo_animal, features, predict, pseudo_gt, synth, train

    _ = h5py, matplotlib.pyplot, warp, demo_animal, features, predict, pseudo_gt, synth, train


def run(words: tuple[str, ...], folder: Path, before: Callable[[], None] | None = None) -> int:
    """Fork a child that runs `shic WORDS` in `folder` after `before`, its stderr in `stderr.txt`; its process number."""
    pid = os.fork()
    if pid:
        return pid
    os.chdir(folder)
    error = os.open("stderr.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    os.dup2(error, 2)
    os.dup2(error, 1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if before:
        before()
    from shic_cli.cli import main

    status = 70
    try:
        main(list(words))
    except SystemExit as ended:
        status = ended.code or 0
    except BaseException:
        traceback.print_exc()
    sys.stderr.flush()
    atexit._run_exitfuncs()
    ctypes.CDLL(None).exit(status)  # not through the parent's frames, but not without the libraries' last words either
    raise AssertionError


def finished(pid: int) -> int:
    """The exit status of a child, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def make_inputs(folder: Path) -> None:
    """template.h5, imgs/, masks/, synth.h5 and model.safetensors of a small animal."""
    import cv2
    import numpy as np
    import trimesh
    from conftest import animal_verts

    from shic_cli.schema import ItemReader

    ball = trimesh.creation.icosphere(subdivisions=3)
    trimesh.Trimesh(animal_verts(np.asarray(ball.vertices)), ball.faces, process=False).export(folder / "animal.obj")
    number = str(PICTURES)
    lines = [
        ("template", "prep", "animal.obj", "--vertices", "0", "--eigenvectors", "16"),
        ("synth", "-o", "synth.h5", "--number", number, "--size", "96", "--seed", "9"),
        ("train", "synth.h5", "--epochs", "1", "--encoder", "silhouette", "--batch", "4"),
    ]
    for line in lines:
        if finished(run(line, folder)):
            raise RuntimeError(f"shic {' '.join(line)}: {(folder / 'stderr.txt').read_text()}")
    for name in ("imgs", "masks"):
        (folder / name).mkdir()
    for i, item in enumerate(ItemReader(folder / "synth.h5", "shic/maps")):
        cv2.imwrite(str(folder / "imgs" / f"photo{i}.png"), cv2.imdecode(item.encoded, cv2.IMREAD_COLOR))
        cv2.imwrite(str(folder / "masks" / f"photo{i}.png"), item.mask.astype(np.uint8) * 255)


class Trials:
    """Stopped runs of one command, and the faults that they showed."""

    def __init__(self, name: str, folder: Path, how: str, seed: int) -> None:
        self.name, self.folder, self.how = name, folder, how
        self.chance = random.Random(f"{name} {how} {seed}")
        self.out, self.log = folder / "out", folder / "log.txt"
        self.words = tuple(word.format(out="out") for word in LINES[name])
        self.counts = {"stopped": 0, "while finishing": 0, "trials": 0, "already over": 0, "statuses": {}}
        self.faults: list[str] = []
        self._reference()

    def _reference(self) -> None:
        """Two uninterrupted runs: what the files are, how long a run takes, and its end alone."""
        self.wanted: dict[str, bytes] = {}
        for _ in range(2):
            self._clear()
            start = time.monotonic()
            status, marks = self._once(None)
            self.length = time.monotonic() - start
            if status:
                raise RuntimeError(f"{self.name}: status {status}: {self._said()}")
            if self.wanted and self.wanted != self._files():
                self.faults.append(f"two uninterrupted runs differ in {self._difference()}")
            self.wanted = self._files()
        self.end = time.monotonic() - marks["finishing"]
        self.largest = max(map(len, self.wanted.values()))

    def _clear(self) -> None:
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir()
        self.log.write_bytes(b"")

    def _files(self) -> dict[str, bytes]:
        return {str(path.relative_to(self.out)): path.read_bytes() for path in sorted(self.out.rglob("*")) if path.is_file()}

    def _difference(self) -> str:
        found = self._files()
        return ", ".join(name for name in {**found, **self.wanted} if found.get(name) != self.wanted.get(name))

    def _said(self) -> str:
        return (self.folder / "stderr.txt").read_text()

    def run(self, runs: int) -> dict:
        """Trials until `runs` runs were stopped: what was counted, and the faults."""
        while self.counts["stopped"] < runs and len(self.faults) < 10:
            self._clear()
            self.counts["trials"] += 1
            with Disk(self.out, self.how == "disk") as disk:
                for _ in range(self.chance.randint(1, 5)):
                    if self._stopped_run(disk):
                        break
                disk.enlarge(self.largest * 8 + (8 << 20))
                status, _ = self._once(None)
                if status and THERE not in self._said():
                    self.faults.append(f"trial {self.counts['trials']}: status {status} at last: {self._said()}")
                self._check()
            print(f"{self.name}: {self.counts['stopped']} of {runs} runs stopped, {len(self.faults)} faults", file=sys.stderr)
        return {**self.counts, "seconds": round(self.length, 2), "faults": self.faults}

    def _stopped_run(self, disk: Disk) -> bool:
        """One run that is to be stopped; True when the work is over all the same."""
        limits = {"limit": self.chance.randint(500, self.largest), "disk": self.chance.randint(500, 2 * self.largest + 40_000)}
        if self.how == "limit":
            status, marks = self._once(None, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limits["limit"],) * 2))
        elif self.how == "disk":
            disk.enlarge(limits["disk"])
            status, marks = self._once(None)
        else:
            late = self.chance.random() < 0.4
            status, marks = self._once((late, self.chance.uniform(0, 1.2 * self.end if late else 1.05 * self.length)))
        said = self._said()
        if status == 0 or THERE in said:
            self.counts["already over"] += status != 0
            return True
        self.counts["stopped"] += 1
        self.counts["while finishing"] += "finishing" in marks
        self.counts["statuses"][str(status)] = self.counts["statuses"].get(str(status), 0) + 1
        wanted = {"kill": -signal.SIGKILL, **STATUS}.get(self.how, 1)
        lines = [line for line in said.splitlines() if line.startswith(("shic: error:", "  "))]
        if status != wanted or (self.how != "kill" and (len(lines) != 2 or "same line" not in lines[1] or "Traceback" in said)):
            self.faults.append(f"trial {self.counts['trials']}: status {status}, wanted {wanted}: {said[-1500:]}")
        return False

    def _once(self, stop: tuple[bool, float] | None, before: Callable[[], None] | None = None) -> tuple[int, dict[str, float]]:
        """One run; with `stop`, a signal is sent so many seconds after its start, or, if that is True, after it began to finish.

        Its exit status, and when it reached its marks.
        """
        read, write = os.pipe()

        def prepare() -> None:
            os.close(read)
            watch(self.name, os.open(self.log, os.O_WRONLY | os.O_APPEND), write)
            if before:
                before()

        pid = run(self.words, self.folder, prepare)
        os.close(write)
        marks: dict[str, float] = {}
        due = time.monotonic() + stop[1] if stop and not stop[0] else None
        while True:
            ready, _, _ = select.select([read], [], [], None if due is None else max(due - time.monotonic(), 0))
            if not ready:
                os.kill(pid, SIGNALS[self.how])
                due = None
                continue
            if not os.read(read, 1):  # it has ended
                break
            marks["finishing"] = time.monotonic()
            if stop and stop[0]:
                due = marks["finishing"] + stop[1]
        os.close(read)
        return finished(pid), marks

    def _check(self) -> None:
        """The files are those of an uninterrupted run, and nothing was computed after it was kept."""
        where = f"trial {self.counts['trials']}"
        if difference := self._difference():
            self.faults.append(f"{where}: not as in an uninterrupted run: {difference}")
        kept = set()
        for line in self.log.read_text().splitlines():
            what, _, item = line.partition(" ")
            if what == "kept":
                kept.add(item)
            elif item in kept:
                self.faults.append(f"{where}: {item} was computed again")


class Disk:
    """A small file system at `folder` when `wanted`, else nothing."""

    def __init__(self, folder: Path, wanted: bool) -> None:
        self.folder, self.wanted = folder, wanted

    def __enter__(self) -> Disk:
        if self.wanted and os.system(f"mount -t tmpfs -o size=64k tmpfs {self.folder}"):
            raise RuntimeError("a file system can't be mounted here: use --how limit")
        return self

    def enlarge(self, size: int) -> None:
        """Let `size` bytes fit."""
        if self.wanted:
            os.system(f"mount -o remount,size={size} {self.folder}")

    def __exit__(self, *_: object) -> None:
        if self.wanted:
            os.system(f"umount {self.folder}")


def watch(name: str, log: int, pipe: int) -> None:
    """In the child: write to `log` what is computed and what is kept, and to `pipe` when the final file is begun."""
    from shic_cli import features, outputs, predict, pseudo_gt, schema, synth, train

    def note(what: str, item: object) -> None:
        os.write(log, f"{what} {item}\n".encode())

    def wrap(owner: object, attribute: str, what: str, item: Callable[..., object], first: bool) -> None:
        real = getattr(owner, attribute)

        def wrapped(*args: object, **kwargs: object) -> object:
            named = item(*args)
            if first:
                note(what, named)
            result = real(*args, **kwargs)
            if not first:
                note(what, named)
            return result

        setattr(owner, attribute, wrapped)

    computed = {
        "features": (features, "photo_features", lambda extractor, photo: photo.name),
        "pseudo-gt": (pseudo_gt, "photo_features", lambda extractor, photo: photo.name),
        "synth": (synth, "chance", lambda seed, part, i: synth.picture_name(i)),
        "train": (train.Trainer, "run_epoch", lambda trainer: trainer.epoch + 1),
        "predict": (predict.Predictor, "predict", lambda predictor, photo: photo.name),
    }
    wrap(*computed[name][:2], "computed", computed[name][2], True)
    wrap(schema.ItemWriter, "add", "kept", lambda writer, item: item, False)
    wrap(train.Trainer, "save_checkpoint", "kept", lambda trainer, path: trainer.epoch, False)
    finishing = outputs.Journal.finishing

    def marked(journal: outputs.Journal) -> object:
        os.write(pipe, b"f")
        return finishing(journal)

    outputs.Journal.finishing = marked


if __name__ == "__main__":
    main()
