"""Long commands that are killed, stopped and short of space again and again, and what they leave: `python
tests/crash.py --runs 50 train`.

A server that has imported everything forks a child for each run, which runs the command line. The child is
stopped at a random moment (fixed seeds): at any time, while the final file is put together, or at one of its
operations on files (opening, the middle of a write, renaming, removing), and the same line is given again
until it is done. Then the files must be those of an uninterrupted run, byte by byte, and no others may be
there, and nothing that was kept may have been computed again. Prints one JSON object; exit status 1 when a
promise was broken.
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

from shic_cli.stages.train import train

PICTURES = 6
LINES: dict[str, tuple[str, ...]] = {
    "features": ("features", "imgs", "-o", "{out}/f.h5", "--extractor", "silhouette"),
    "pseudo-gt": (
        "pseudo-gt",
        "imgs",
        "-o",
        "{out}/p.h5",
        "--azimuths",
        "3",
        "--elevations",
        "10",
        "--extractor",
        "silhouette",
    ),
    "synth": ("synth", "-o", "{out}/s.h5", "--number", str(PICTURES), "--size", "96"),
    "train": (
        *(
            "train",
            "synth.h5",
            "-o",
            "{out}/m.safetensors",
            "--encoder",
            "silhouette",
            "--epochs",
            "5",
            "--batch",
            "4",
            "--points",
            "20",
        ),
        *("--seed", "3"),
    ),
    "predict": ("predict", "imgs", "-o", "{out}/predictions.maps.h5", "--remap", "grid"),
    "template": (
        *("template", "prep", "animal.obj", "-o", "{out}/t.h5"),
        *("--vertices", "0", "--eigenvectors", "16"),
    ),
    "mask": ("mask", "imgs", "-o", "{out}/found", "--masker", "grabcut"),
    "dataset": (
        *("dataset", "densepose-lvis", "densepose_lvis_v1_ds1_val_v1.json"),
        *("--images", "coco", "-o", "{out}/lvis"),
    ),
}
LONG = ("features", "pseudo-gt", "synth", "train", "predict")  # what was finished is not computed again
HOWS = ("kill", "term", "int", "limit", "disk")
STATUS = {"term": 128 + signal.SIGTERM, "int": 128 + signal.SIGINT}
SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "int": signal.SIGINT}
NAMES = {b"b": "begun", b"f": "finishing", b"c": "closed"}
THERE = "is there already and is kept"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "commands", nargs="*", choices=[*LINES, []], help="which; all of them when none is named"
    )
    parser.add_argument("--runs", type=int, default=50, help="runs to stop, for each command")
    how = (
        "limit: on a file's size; disk: a small file system (root only); may be given "
        "several times  [default: kill]"
    )
    parser.add_argument("--how", choices=HOWS, action="append", help=how)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    import_all()
    folder = Path(tempfile.mkdtemp(prefix="shic-crash-"))
    try:
        make_inputs(folder)
        found = {}
        for name in given.commands or LINES:
            trials = Trials(name, folder, given.seed)
            found |= {f"{name} {how}": trials.run(given.runs, how) for how in given.how or ["kill"]}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    sys.exit(any(each["faults"] for each in found.values()))


def import_all() -> None:
    """What the commands import, once; before any of it has started a thread."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ["SHIC_WEIGHTS"] = ""
    import h5py
    import matplotlib.pyplot
    import warp

    from shic_cli.stages import demo_animal, features, predict, pseudo_gt, synth

    _ = h5py, matplotlib.pyplot, warp, demo_animal, features, predict, pseudo_gt, synth, train


def run(words: tuple[str, ...], folder: Path, before: Callable[[], None] | None = None) -> int:
    """Fork a child that runs `shic WORDS` in `folder` after `before`, its stderr in `stderr.txt`; its process
    number.
    """
    pid = os.fork()
    if pid:
        return pid
    os.chdir(folder)
    error = os.open("stderr.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    os.dup2(error, 2)
    os.dup2(error, 1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from shic_cli.cli import main

    status = 70
    try:
        if before:
            before()
        sys.argv = ["shic", *words]
        main()
    except SystemExit as ended:
        status = ended.code or 0
    except BaseException:
        traceback.print_exc()
    sys.stderr.flush()
    atexit._run_exitfuncs()
    ctypes.CDLL(None).exit(
        status
    )  # not through the parent's frames, but not without the libraries' last words either
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

    from shic_cli.files.items import ItemReader

    ball = trimesh.creation.icosphere(subdivisions=3)
    trimesh.Trimesh(animal_verts(np.asarray(ball.vertices)), ball.faces, process=False).export(
        folder / "animal.obj"
    )
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
    make_data_set(folder)


def make_data_set(folder: Path) -> None:
    """coco/ with the photos, and an annotation file of two classes as DensePose-LVIS publishes it."""
    (folder / "coco" / "val2017").mkdir(parents=True)
    images, annotations = [], []
    for i in range(PICTURES):
        shutil.copy(folder / "imgs" / f"photo{i}.png", folder / "coco" / "val2017" / f"{i:012d}.jpg")
        images.append({"id": i, "width": 96, "height": 96, "coco_url": f"http://x/val2017/{i:012d}.jpg"})
        box = {"bbox": [20, 20, 50, 40], "area": 2000, "segmentation": [[20, 20, 70, 20, 70, 60, 20, 60]]}
        points = {"dp_x": [0, 127.5], "dp_y": [0, 127.5], "dp_vertex": [1, 2], "ref_model": "horse_5004"}
        annotations.append({"id": i, "image_id": i, "category_id": 1 + i % 2, **box, **points})
    categories = [{"id": 1, "name": "horse"}, {"id": 2, "name": "cow"}]
    value = {"images": images, "categories": categories, "annotations": annotations}
    (folder / "densepose_lvis_v1_ds1_val_v1.json").write_text(json.dumps(value))


class Trials:
    """Stopped runs of one command, and the faults that they showed."""

    def __init__(self, name: str, folder: Path, seed: int) -> None:
        self.name, self.folder, self.seed, self.how = name, folder, seed, "kill"
        self.out, self.log = folder / "out", folder / "log.txt"
        self.words = tuple(word.format(out="out") for word in LINES[name])
        self._reference()

    def _reference(self) -> None:
        """An uninterrupted run: what the files are, how long a run takes, and its end alone."""
        self._clear()
        start = time.monotonic()
        status, marks = self._once()
        self.length, self.end = time.monotonic() - start, marks.get("closed", 0) - marks.get("finishing", 0)
        self.operations = int(marks["operations"])
        if status:
            raise RuntimeError(f"{self.name}: status {status}: {self._said()}")
        self.wanted = self._files()
        self.largest = max(map(len, self.wanted.values()))

    def _clear(self) -> None:
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir()
        self.log.write_bytes(b"")

    def _files(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.out)): path.read_bytes()
            for path in sorted(self.out.rglob("*"))
            if path.is_file()
        }

    def _difference(self) -> str:
        """The names of the files that differ; the log of training has seconds, which always do."""
        found = self._files()
        differs = [name for name in {**found, **self.wanted} if found.get(name) != self.wanted.get(name)]
        return ", ".join(name for name in differs if not name.endswith(".log.csv"))

    def _said(self) -> str:
        return (self.folder / "stderr.txt").read_text()

    def run(self, runs: int, how: str) -> dict:
        """Trials until `runs` runs were stopped as `how` says: what was counted, and the faults."""
        self.how, self.chance, self.faults = how, random.Random(f"{self.name} {how} {self.seed}"), []
        self.counts = {"stopped": 0, "while finishing": 0, "trials": 0, "already over": 0, "statuses": {}}
        while self.counts["stopped"] < runs and len(self.faults) < 10:
            self._clear()
            self.counts["trials"] += 1
            with Disk(self.out, self.how == "disk") as disk:
                for _ in range(self.chance.randint(1, 5)):
                    if self._stopped_run(disk):
                        break
                disk.enlarge(self.largest * 8 + (8 << 20))
                status, _ = self._once()
                if status and THERE not in self._said():
                    self.faults.append(
                        f"trial {self.counts['trials']}: status {status} at last: {self._said()}"
                    )
                self._check()
            sys.stderr.write(
                f"{self.name} {how}: {self.counts['stopped']} of {runs} runs stopped,"
                f" {len(self.faults)} faults\n"
            )
        return {**self.counts, "seconds": round(self.length, 2), "faults": self.faults}

    def _stopped_run(self, disk: Disk) -> bool:
        """One run that is to be stopped; True when the work is over all the same."""
        if self.how == "limit":
            limit = self.chance.randint(500, self.largest)
            status, marks = self._once(
                before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            )
        elif self.how == "disk":
            disk.enlarge(self.chance.randint(500, 2 * self.largest + 40_000))
            status, marks = self._once()
        else:
            moments = {
                "time": (0, 1.05 * self.length),
                "late": (0, 1.1 * self.end),
                "operation": (0, self.operations),
            }
            kind = self.chance.choice(list(moments))
            status, marks = self._once((kind, self.chance.uniform(*moments[kind])))
        said = self._said()
        if status == 0 or THERE in said:
            self.counts["already over"] += status != 0
            return True
        self.counts["stopped"] += 1
        self.counts["while finishing"] += "finishing" in marks
        self.counts["statuses"][str(status)] = self.counts["statuses"].get(str(status), 0) + 1
        wanted = {"kill": -signal.SIGKILL, **STATUS}.get(self.how, 1)
        lines = [line for line in said.splitlines() if line.startswith(("shic: error:", "  "))]
        if status != wanted or (
            self.how != "kill" and (len(lines) != 2 or "same line" not in lines[1] or "Traceback" in said)
        ):
            self.faults.append(
                f"trial {self.counts['trials']}: status {status}, wanted {wanted}: {said[-1500:]}"
            )
        return False

    def _once(
        self, stop: tuple[str, float] = ("", 0), before: Callable[[], None] | None = None
    ) -> tuple[int, dict[str, float]]:
        """One run; it is sent a signal so many seconds after it has begun (`time`) or after it began to
        finish (`late`), or at the `operation` of that number on its files.

        Its exit status, when it began to finish and was done with it, and how many operations there were.
        """
        read, write = os.pipe()
        kind, moment = stop

        def prepare() -> None:
            os.close(read)
            at = int(moment) if kind == "operation" else -1
            watch(
                self.name,
                self.out,
                os.open(self.log, os.O_WRONLY | os.O_APPEND),
                write,
                at,
                SIGNALS.get(self.how, 0),
            )
            if before:
                before()

        pid = run(self.words, self.folder, prepare)
        os.close(write)
        marks: dict[str, float] = {"operations": 0}
        due = None
        while True:
            ready, _, _ = select.select(
                [read], [], [], None if due is None else max(due - time.monotonic(), 0)
            )
            if not ready:
                os.kill(pid, SIGNALS[self.how])
                due = None
                continue
            said = os.read(read, 1)
            if not said:  # it has ended
                break
            if said == b"o":
                marks["operations"] += 1
                continue
            marks[NAMES[said]] = time.monotonic()
            if NAMES[said] == {"time": "begun", "late": "finishing"}.get(kind):
                due = time.monotonic() + moment
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


def watch(name: str, out: Path, log: int, pipe: int, at: int, number: int) -> None:
    """In the child: write to `log` what is computed and what is kept, and to `pipe` when the final file is
    begun and done, and each operation on files in `out`; at that of number `at` the signal `number` comes.
    """
    watch_work(name, log)
    watch_files(out, pipe, at, number)


def watch_work(name: str, log: int) -> None:
    """Write to `log` what the stage `name` computes and what it keeps."""
    from shic_cli.files.items import ItemWriter
    from shic_cli.learning.trainer import Trainer
    from shic_cli.stages import features, predict, pseudo_gt, synth, synth_writing

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
        "features": (features, "_crops", lambda photos: photos[0].name),
        "pseudo-gt": (pseudo_gt, "photo_features", lambda extractor, photos: photos[0].name),
        "synth": (synth, "chance", lambda seed, part, i: synth_writing.picture_name(i)),
        "train": (Trainer, "run_epoch", lambda trainer, *_: trainer.epoch + 1),
        "predict": (predict.Predictor, "predict_all", lambda predictor, photos: photos[0].name),
    }
    if name in computed:  # the others begin again with what is not finished
        wrap(*computed[name][:2], "computed", computed[name][2], True)
    wrap(ItemWriter, "keep", "kept", lambda writer, item, record: item, False)
    wrap(Trainer, "save_checkpoint", "kept", lambda trainer, path: trainer.epoch, False)


def watch_files(out: Path, pipe: int, at: int, number: int) -> None:
    """Write to `pipe` when the program listens to signals, when the final file is begun and done, and each
    operation on files in `out`.

    At that of number `at` the signal `number` comes.
    """
    from shic_cli import cli
    from shic_cli.files import atomic

    begin = cli._run

    def begun(*given: object) -> None:
        os.write(pipe, b"b")  # from here on it listens to signals
        begin(*given)

    cli._run = begun

    finishing, close, write = atomic.Journal.finishing, atomic.Journal.close, atomic._write_all

    def marked(journal: atomic.Journal) -> object:
        os.write(pipe, b"f")
        return finishing(journal)

    def closed(journal: atomic.Journal, remove: bool = False) -> None:
        close(journal, remove)
        os.write(pipe, b"c")

    atomic.Journal.finishing, atomic.Journal.close = marked, closed
    done = 0

    def operation() -> bool:
        nonlocal done
        os.write(pipe, b"o")
        done += 1
        return done - 1 == at

    def in_halves(file: object, data: bytes | memoryview) -> None:
        if operation():
            write(file, memoryview(data)[: len(data) // 2])
            os.kill(os.getpid(), number)
        write(file, data)

    def hook(event: str, given: tuple[object, ...]) -> None:
        if (
            event in ("open", "os.rename", "os.remove")
            and isinstance(given[0], (str, Path))
            and out.name in Path(given[0]).parts
            and operation()
        ):
            os.kill(os.getpid(), number)

    atomic._write_all = in_halves
    sys.addaudithook(hook)


if __name__ == "__main__":
    main()
