"""What a bug report needs of a machine, and what is broken on it. Imports nothing heavy: broken packages are
what it is for.

Packages are imported in a process of their own, one after the other; where that process dies, the package
that it was at is to blame.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Any

from shic_cli import __version__
from shic_cli.base.errors import ShicError, UnfinishedError
from shic_cli.files.locks import has_locks

# What pyproject.toml asks for: the package, the module that it is imported as, and the first version that
# serves.
PACKAGES = {
    "numpy": ("numpy", "1.26"), "torch": ("torch", "2.6"), "h5py": ("h5py", "3.10"), "scipy": ("scipy", "1.11"),
    "opencv-python-headless": ("cv2", "4.9"), "pillow": ("PIL", "10.1"), "safetensors": ("safetensors", "0.4.3"),
    "huggingface-hub": ("huggingface_hub", "1.0"), "transformers": ("transformers", "5.0"), "diffusers": ("diffusers", "0.36"),
    "warp-lang": ("warp", "1.19"), "trimesh": ("trimesh", "4.5"), "potpourri3d": ("potpourri3d", "1.2"), "xatlas": ("xatlas", "0.0.9"),
    "fast-simplification": ("fast_simplification", "0.1.7"), "networkx": ("networkx", "3.0"), "matplotlib": ("matplotlib", "3.8"),
    "jinja2": ("jinja2", "3.1"), "rich": ("rich", "13.7"), "click": ("click", "8.1"),
}  # fmt: skip
OPTIONAL = {"pytorch3d": "pytorch3d", "accelerate": "accelerate"}
GROUPS = ("shic.extractors", "shic.renderers", "shic.generators", "shic.maskers")
VARIABLES = re.compile(r"(SHIC|HF|HDF5|OMP|CUDA|WARP|XDG_CACHE|MKL|TORCH|TRANSFORMERS)_\w+")
SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|KEY")
LITTLE = 1 << 30  # bytes of free disk that are worth a word
PATIENCE = 300  # seconds for the imports together


@dataclass
class Report:
    """What was found, by section, and each fault as `(what, fix)`."""

    found: dict[str, Any] = field(default_factory=dict)
    faults: list[tuple[str, str]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The sections, and the faults as objects."""
        return {**self.found, "faults": [{"what": what, "fix": fix} for what, fix in self.faults]}


def examine(folder: Path, weights: Path | None = None) -> Report:
    """The Report of this machine, for work in `folder` and models in the folder `weights` or the hub's cache."""
    report = Report()
    report.found["shic"] = {"version": __version__, "folder": str(Path(__file__).parent)}
    report.found["python"] = {
        "version": platform.python_version(),
        "program": sys.executable,
        "system": platform.platform(),
    }
    report.found["variables"] = {
        name: "(set)" if SECRET.search(name) else value
        for name, value in sorted(os.environ.items())
        if VARIABLES.fullmatch(name)
    }
    probes = probe_all([*PACKAGES.values(), *((module, "") for module in OPTIONAL.values())], folder)
    _packages(report, probes)
    _parts(report, probes)
    _devices(report, probes)
    _weights(report, weights)
    _disk(report, folder, "folder", "go to another folder, or name files in one with -o")
    _disk(report, _cache(), "cache", "set HF_HOME to another folder, or give --weights FOLDER")
    _locks(report, folder, probes)
    return report


def probe_all(modules: list[tuple[str, str]], folder: Path) -> dict[str, dict[str, Any]]:
    """What importing each of the modules says, by name: `version`, `facts`, or `error` where it fails or
    kills its process.
    """
    found: dict[str, dict[str, Any]] = {}
    left = [module for module, _ in modules]
    program = [sys.executable, "-P", "-c", "from shic_cli.stages.doctor import probe; probe()"]
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]))
    while left:
        with tempfile.TemporaryFile("w+") as said:
            try:
                done = subprocess.run(
                    [*program, str(said.fileno()), str(folder), *left], pass_fds=[said.fileno()], capture_output=True, text=True,
                    timeout=PATIENCE, env={**os.environ, "PYTHONPATH": path}, stdin=subprocess.DEVNULL,
                )  # fmt: skip
                end = (
                    f"killed by signal {-done.returncode}"
                    if done.returncode < 0
                    else f"ended the process with status {done.returncode}"
                )
                end += f" ({done.stderr.strip().splitlines()[-1]})" if done.stderr.strip() else ""
            except subprocess.TimeoutExpired:
                end = f"not done after {PATIENCE} s"
            said.seek(0)
            for line in said:
                each = json.loads(line)
                found[each.pop("module")] = each
        left = [name for name in left if name not in found]
        if left:
            found[left.pop(0)] = {"error": end}
    return found


def probe() -> None:
    """Import the modules that the command line names and write a line of JSON about each; `probe_all` runs
    this.
    """
    said, folder, *modules = sys.argv[1:]
    with os.fdopen(int(said), "w") as stream:
        for name in modules:
            each: dict[str, Any] = {"module": name}
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    module = importlib.import_module(name)
                    each["version"] = str(getattr(module, "__version__", ""))
                    each["facts"] = FACTS[name](module, Path(folder)) if name in FACTS else {}
            except Exception as error:
                each["error"] = (
                    f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
                )
                each["missing"] = isinstance(error, ModuleNotFoundError) and error.name == name
            stream.write(json.dumps(each) + "\n")
            stream.flush()


def _torch_facts(torch: Any, folder: Path) -> dict[str, Any]:
    import numpy as np

    torch.from_numpy(np.zeros(2, np.float32)).numpy().sum()  # raises where torch was built for another numpy
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    devices = [torch.cuda.get_device_properties(i) for i in range(count)]
    return {
        "cuda": torch.version.cuda,
        "threads": torch.get_num_threads(),
        "devices": [
            {"name": each.name, "memory": each.total_memory, "capability": f"{each.major}.{each.minor}"}
            for each in devices
        ],
    }


def _h5py_facts(h5py: Any, folder: Path) -> dict[str, Any]:
    """HDF5's version, and whether it locks files in `folder`."""
    import fcntl

    locks, path = False, folder / f".shic.{os.getpid()}.h5"
    try:
        with h5py.File(path, "w"), open(path, "rb") as other:
            try:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                locks = True
    except OSError:  # the folder's own section says why
        pass
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
    return {"hdf5": h5py.version.hdf5_version, "locks": locks}


def _warp_facts(warp: Any, folder: Path) -> dict[str, Any]:
    warp.config.quiet = True
    warp.init()
    cache = Path(warp.config.kernel_cache_dir)
    return {"cache": str(cache), "writable": os.access(_there(cache), os.W_OK)}


FACTS = {"torch": _torch_facts, "h5py": _h5py_facts, "warp": _warp_facts}


def _packages(report: Report, probes: dict[str, dict[str, Any]]) -> None:
    report.found["packages"] = {}
    for package, (module, least) in PACKAGES.items():
        each = probes[module]
        try:
            found = version(package)
        except PackageNotFoundError:
            found = each.get("version", "")
        report.found["packages"][package] = {"version": found, "error": each.get("error", "")}
        again = f"python -m pip install --force-reinstall '{package}>={least}'"
        if "error" in each:
            fault = "is not installed" if each.get("missing") else f"can't be imported ({each['error']})"
            both = " torch" if package == "numpy" else " numpy" if "numpy" in each["error"].lower() else ""
            report.faults.append((f"{package} {found}".strip() + f" {fault}", again + both))
        elif _numbers(found) < _numbers(least):
            report.faults.append((f"{package} {found} is older than {least}", again))
    if not probes["warp"].get("facts", {}).get("writable", True):
        cache = probes["warp"]["facts"]["cache"]
        report.faults.append(
            (
                f"warp's kernel cache {cache} can't be written to",
                "make it writable, or set WARP_CACHE_PATH to a folder",
            )
        )


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text.partition("+")[0])[:3])


def _parts(report: Report, probes: dict[str, dict[str, Any]]) -> None:
    """Optional packages, and the parts that other packages add."""
    report.found["optional"] = {}
    for name, module in OPTIONAL.items():
        each = probes[module]
        error = "" if each.get("missing") else each.get("error", "")
        report.found["optional"][name] = {"version": each.get("version", ""), "error": error}
        if error:
            report.faults.append(
                (f"{name} is installed but can't be imported ({error})", f"reinstall it, or uninstall {name}")
            )
    added = [(group, point) for group in GROUPS for point in entry_points(group=group)]
    tried = probe_all([(point.module, "") for _, point in added], Path.cwd()) if added else {}
    report.found["plugins"] = {}
    for group, point in added:
        error = tried[point.module].get("error", "")
        report.found["plugins"][f"{group}: {point.name}"] = {"from": point.value, "error": error}
        if error:
            report.faults.append(
                (
                    f"{group} {point.name}: {point.module} can't be imported ({error})",
                    "reinstall the package that adds it",
                )
            )


def _devices(report: Report, probes: dict[str, dict[str, Any]]) -> None:
    facts, driver = probes["torch"].get("facts", {}), Path("/proc/driver/nvidia/version")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    report.found["devices"] = {
        "cpu": {"cores": cores, **_memory()},
        "cuda": facts.get("devices", []),
        "torch cuda": facts.get("cuda"),
    }
    if facts and not facts["devices"] and driver.exists():
        fix = "install the torch that its driver can run (https://pytorch.org/get-started/locally/), or give --device cpu"
        report.faults.append(
            (f"there is an NVIDIA driver, but torch (CUDA {facts['cuda']}) finds no device", fix)
        )


def _memory() -> dict[str, int]:
    """Bytes of memory: `memory` in all, `free` of them."""
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        return {
            key: int(lines[name].split()[0]) << 10
            for key, name in (("memory", "MemTotal"), ("free", "MemAvailable"))
        }
    except (OSError, KeyError, ValueError):
        return {"memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")}


def _weights(report: Report, weights: Path | None) -> None:
    from shic_cli.parts.weights import MODELS, locate

    report.found["weights"] = {}
    for name in MODELS:
        try:
            report.found["weights"][name] = str(locate(name, weights))
        except UnfinishedError:
            report.found["weights"][name] = "not finished"
        except (
            ShicError,
            ImportError,
            OSError,
            AttributeError,
        ):  # the packages' own section says which is broken
            report.found["weights"][name] = ""


def _cache() -> Path:
    """Where the hub's cache is, or would be."""
    home = os.environ.get("HF_HOME") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface"
    )
    return Path(os.path.expanduser(os.environ.get("HF_HUB_CACHE") or os.path.join(home, "hub")))


def _there(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(each for each in (folder.absolute(), *folder.absolute().parents) if each.is_dir())


def _disk(report: Report, folder: Path, name: str, instead: str) -> None:
    there = _there(folder)
    free, writable = shutil.disk_usage(there).free, os.access(there, os.W_OK | os.X_OK)
    report.found[name] = {
        "path": str(folder.absolute()),
        "free": free,
        "writable": writable,
        "type": file_system(there),
    }
    if not writable:
        report.faults.append((f"{there} can't be written to", f"make it writable for you, {instead}"))
    elif free < LITTLE:
        report.faults.append((f"{there} has {free / 1e6:.0f} MB of free disk", f"make room, {instead}"))


def file_system(folder: Path) -> str:
    """The type of the file system that `folder` is on, as the system names it; empty where it does not say."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        return ""
    path = folder.resolve()
    above = [
        (place, kind)
        for place, kind in ((each[0].replace("\\040", " "), each[1]) for each in mounts)
        if path.is_relative_to(place)
    ]
    return max(above, key=lambda each: len(each[0]), default=("", ""))[1] if above else ""


def _locks(report: Report, folder: Path, probes: dict[str, dict[str, Any]]) -> None:
    try:
        locks = has_locks(folder)
    except OSError:  # it can't be written to, which was said
        return
    report.found["folder"] |= {
        "locks": locks,
        "HDF5 locks": probes["h5py"].get("facts", {}).get("locks", False),
    }
