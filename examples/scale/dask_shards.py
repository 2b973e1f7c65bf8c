"""A stage of shic as shares on the workers of a Dask cluster, and the join of their parts.

    python dask_shards.py 64 pseudo-gt photos/ --views views.h5 -o pgt.h5
    python dask_shards.py --scheduler tcp://host:8786 64 predict photos/ -o photos.maps.h5 --no-pictures

Without --scheduler it starts two workers on this machine. The workers see the same folder as this process.
The same line goes on after anything: a share that is finished ends at once.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from distributed import Client, as_completed


def run(words: list[str], folder: str) -> tuple[str, int]:
    """The end of what one shic process said in `folder`, and its status."""
    done = subprocess.run(
        [sys.executable, "-m", "shic_cli", *words], cwd=folder, capture_output=True, text=True
    )
    if done.returncode not in (0, 4):  # 4: some photos failed, the others are written
        raise RuntimeError(done.stderr)  # another worker tries again
    return done.stderr.strip()[-500:], done.returncode


def main() -> int:
    parser = argparse.ArgumentParser(usage="dask_shards.py [--scheduler ADDRESS] SHARES COMMAND ... -o FILE")
    parser.add_argument("--scheduler")
    parser.add_argument("shares", type=int)
    parser.add_argument("words", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    output, count, worst = Path(options.words[options.words.index("-o") + 1]), options.shares, 0
    local = {} if options.scheduler else {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0"}
    with Client(options.scheduler, **local) as client:
        shares = [[*options.words, "--shard", f"{i}/{count}"] for i in range(1, count + 1)]
        futures = client.map(run, shares, folder=os.getcwd(), retries=2, pure=False)
        for done, (said, status) in as_completed(futures, with_results=True):
            sys.stderr.write(f"{done.key}: {said}\n")
            worst = max(worst, status)
    parts = [
        output.with_name(f"{output.stem}.part-{i}-of-{count}{output.suffix}") for i in range(1, count + 1)
    ]
    said, status = run(["join", *map(str, parts), "-o", str(output)], os.getcwd())
    return max(worst, status)


if __name__ == "__main__":
    sys.exit(main())
