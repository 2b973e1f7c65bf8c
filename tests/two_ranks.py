"""Programs in two processes, as torchrun starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def torchrun(folder: Path, program: str) -> subprocess.CompletedProcess[str]:
    """Run `program` in two processes that torchrun starts in `folder`; it may call `shic(*words)`."""
    begin = "import faulthandler, os\nfaulthandler.dump_traceback_later(120, exit=True)  # who waits for ever says where\n"
    begin += "from shic_cli.cli import main\nrank = int(os.environ['RANK'])\n"
    begin += "def shic(*words):\n    try: main(list(words))\n    except SystemExit as ended: assert not ended.code, (words, ended.code)\n"
    (folder / "program.py").write_text(begin + program)
    root, tests = Path(__file__).parents[1], Path(__file__).parent
    paths = os.pathsep.join([str(root), str(tests), *filter(None, [os.environ.get("PYTHONPATH")])])
    line = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "program.py",
    ]
    env = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(line, cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False)
