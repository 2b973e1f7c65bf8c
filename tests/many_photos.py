"""Memory and time of `pseudo-gt` and `predict` over thousands of small photos: `python tests/many_photos.py`.

The photos are 48 pixels a side, of a template of 642 vertices. Of every hundred one is cut short, and the
mask of another is empty: these are left out, and the commands end with status 4. Prints one JSON object:
for each command the seconds of processor time a photo, and the memory of its process, early and late.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import psutil
from crash import import_all, make_inputs

from shic_cli.files.atomic import MAGIC, RECORD

SIDE, DRAWN = 48, 6
COMMANDS = {
    "pseudo-gt": ("pseudo-gt", "many/imgs", "-o", "p.h5", "--azimuths", "3", "--elevations", "10"),
    "predict": ("predict", "many/imgs", "-o", "q.maps.h5"),
}
OPTIONS = {"pseudo-gt": ("--extractor", "silhouette"), "predict": ()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("commands", nargs="*", choices=[*COMMANDS, []], help="both when none is named")
    parser.add_argument("--number", type=int, default=12000, help="photos  [default: 12000]")
    parser.add_argument("--minutes", type=float, default=60, help="for each command  [default: 60]")
    given = parser.parse_args()
    import_all()
    folder = Path(tempfile.mkdtemp(prefix="shic-many-"))
    try:
        make_inputs(folder)
        make_photos(folder, given.number)
        found = {command: measure(command, folder, given.minutes) for command in given.commands or COMMANDS}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sys.stdout.write(json.dumps({"photos": given.number, **found}, indent=2) + "\n")


def make_photos(folder: Path, number: int) -> None:
    """many/imgs and many/masks: `number` photos, each one of the six drawn ones, shifted and with noise."""
    imgs, masks = folder / "many" / "imgs", folder / "many" / "masks"
    imgs.mkdir(parents=True), masks.mkdir()
    shrink = {"dsize": (SIDE, SIDE), "interpolation": cv2.INTER_AREA}
    drawn = [
        [cv2.resize(cv2.imread(str(folder / kind / f"photo{i}.png")), **shrink) for kind in ("imgs", "masks")]
        for i in range(DRAWN)
    ]
    chance = np.random.default_rng(0)
    for i in range(number):
        photo, mask = (np.roll(each, chance.integers(-4, 5), 1) for each in drawn[i % DRAWN])
        photo = (photo.astype(int) + chance.integers(-9, 10, photo.shape)).clip(0, 255).astype(np.uint8)
        data = cv2.imencode(".png", photo)[1].tobytes()
        (imgs / f"{i:05d}.png").write_bytes(data[: len(data) // 2] if i % 100 == 50 else data)
        cv2.imwrite(str(masks / f"{i:05d}.png"), mask[..., 0] * (i % 100 != 75))


def measure(command: str, folder: Path, minutes: float) -> dict[str, float]:
    """Run the command, and stop it after `minutes`: its status, and `figures` of its photos."""
    line, points, start = (*COMMANDS[command], *OPTIONS[command]), [], time.monotonic()
    target = folder / COMMANDS[command][3]
    count = counter(target.with_name(f"{target.name}.journal"))
    with (
        open(folder / f"{command}.err", "wb") as errors,
        subprocess.Popen([sys.executable, "-m", "shic_cli", *line], cwd=folder, stderr=errors) as running,
    ):
        process = psutil.Process(running.pid)
        while running.poll() is None:
            seconds = time.monotonic() - start
            with process.oneshot():
                spent = process.cpu_times()
                used = spent.user + spent.system
                points.append((seconds, used, count(), process.memory_info().rss / 2**20))
            if seconds > 60 * minutes:
                running.terminate()
                running.wait()
            time.sleep(0.2)
    return {"status": running.returncode, **figures(np.array(points))}


def counter(journal: Path) -> Callable[[], int]:
    """A function that says how many photos the journal holds so far."""
    place, records = 0, -1  # the first record is of the run itself

    def count() -> int:
        nonlocal place, records
        if journal.exists():
            with open(journal, "rb") as file:
                file.seek(place)
                while len(head := file.read(RECORD.size)) == RECORD.size and head[:4] == MAGIC:
                    place += RECORD.size + RECORD.unpack(head)[1]
                    records += 1
                    file.seek(place)
        return max(records, 0)

    return count


def figures(points: np.ndarray) -> dict[str, float]:
    """The pace in the first and last tenth of the photos, and megabytes, of `points` `(n, 4)`.

    A point is seconds by the clock, seconds of processor time, photos that are done, and megabytes.
    """
    seconds, used, done, memory = points.T
    first, last = (int(np.searchsorted(done, number)) for number in (1, done.max()))
    tenth, half, ninth = (int(np.searchsorted(done, done.max() * part)) for part in (0.1, 0.5, 0.9))

    def pace(begin: int, end: int) -> float:
        return round((used[end] - used[begin]) / (done[end] - done[begin]), 3)

    return {
        "photos": int(done.max()),
        "seconds by the clock before the first photo": round(seconds[first], 1),
        "processor seconds a photo in the first tenth": pace(first, tenth),
        "processor seconds a photo in the middle": pace(tenth, ninth),
        "processor seconds a photo in the last tenth": pace(ninth, last),
        "MB after a tenth": round(memory[tenth]),
        "MB after half": round(memory[half]),
        "MB after nine tenths": round(memory[ninth]),
        "MB at most with photos": round(memory[: last + 1].max()),
        "MB at most after the last photo": round(memory[last:].max()),
        "seconds after the last photo": round(seconds[-1] - seconds[last], 1),
    }


if __name__ == "__main__":
    main()
