"""Examines a machine for a bug report, and finds what is broken on it.

It imports nothing heavy, because its purpose is to find broken packages. Packages are imported in a process
of their own, one after the other; if that process dies, the package that was being imported is to blame.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
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
from shic_cli.base.packages import OPTIONAL
from shic_cli.files.locks import has_locks

# The packages that every installation has: the module that is imported, and the first version that works.
PACKAGES = {
    "numpy": ("numpy", "1.26"),
    "torch": ("torch", "2.6"),
    "h5py": ("h5py", "3.10"),
    "scipy": ("scipy", "1.11.1"),
    "opencv-python-headless": ("cv2", "4.9.0.80"),
    "pillow": ("PIL", "11.3"),
    "filelock": ("filelock", "4.3.1"),
    "psutil": ("psutil", "5.9"),
    "safetensors": ("safetensors", "0.4.3"),
    "warp-lang": ("warp", "1.19"),
    "trimesh": ("trimesh", "4.5"),
    "potpourri3d": ("potpourri3d", "1.2.1"),
    "fast-simplification": ("fast_simplification", "0.1.7"),
    "networkx": ("networkx", "3.0"),
    "jinja2": ("jinja2", "3.1"),
    "rich": ("rich", "13.7"),
    "click": ("click", "8.1"),
}
SLOW = (
    *("transformers", "diffusers", "accelerate", "pytorch3d", "huggingface_hub"),
    *("trimesh", "networkx", "matplotlib", "onnx", "onnxruntime"),
)  # modules whose imports take most of the time
GROUPS = ("shic.extractors", "shic.renderers", "shic.generators", "shic.maskers")
VARIABLES = re.compile(r"(SHIC|HF|HDF5|OMP|CUDA|WARP|XDG_CACHE|MKL|TORCH|TRANSFORMERS)_\w+")
SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|KEY")
LITTLE = 1 << 30  # bytes; less free disk than this is reported
PATIENCE = 300  # seconds that all imports together may take


@dataclass
class Report:
    """The results by section, and each fault as `(what, fix)`."""

    sections: dict[str, Any] = field(default_factory=dict)
    faults: list[tuple[str, str]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The sections, and the faults as objects."""
        return {**self.sections, "faults": [{"what": what, "fix": fix} for what, fix in self.faults]}


def examine(folder: Path, weights: Path | None = None, full: bool = False) -> Report:
    """The report of this machine, for work in `folder` and weights in `weights` or the hub's cache.

    Packages whose import takes seconds are imported only if `full`; else only their versions are read.
    """
    report = Report()
    report.sections["shic"] = {"version": __version__, "folder": str(Path(__file__).parent)}
    report.sections["python"] = {
        "version": platform.python_version(),
        "program": sys.executable,
        "system": platform.platform(),
    }
    report.sections["variables"] = {
        name: "(set)" if SECRET.search(name) else value
        for name, value in sorted(os.environ.items())
        if VARIABLES.fullmatch(name)
    }
    modules = [*PACKAGES.values(), *((module, "") for module in OPTIONAL)]
    slow = () if full else SLOW
    probes = probe_all([each for each in modules if each[0] not in slow], folder)
    probes |= {module: _seen(module) for module, _ in modules if module in slow}
    _packages(report, probes)
    _parts(report, probes)
    _devices(report, probes)
    _weights(report, weights)
    _disk(report, folder, "folder", "go to another folder, or name files in one with -o")
    _disk(report, _cache(), "cache", "set HF_HOME to another folder, or give --weights FOLDER")
    _locks(report, folder, probes)
    return report


def probe_all(modules: list[tuple[str, str]], folder: Path) -> dict[str, dict[str, Any]]:
    """The result of importing each of the modules, by name: `version` and `facts`, or `error`.

    An import is an error if it fails or if it kills its process.
    """
    results: dict[str, dict[str, Any]] = {}
    left = [module for module, _ in modules]
    program = [sys.executable, "-P", "-c", "from shic_cli.stages.doctor import probe; probe()"]
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]))
    while left:
        with tempfile.TemporaryDirectory() as place:
            output = Path(place, "results")
            output.touch()
            try:
                done = subprocess.run(
                    [*program, str(output), str(folder), *left],
                    capture_output=True,
                    text=True,
                    timeout=PATIENCE,
                    env={**os.environ, "PYTHONPATH": path},
                    stdin=subprocess.DEVNULL,
                )
                end = (
                    f"killed by signal {-done.returncode}"
                    if done.returncode < 0
                    else f"ended the process with status {done.returncode}"
                )
                end += f" ({done.stderr.strip().splitlines()[-1]})" if done.stderr.strip() else ""
            except subprocess.TimeoutExpired:
                end = f"did not end within {PATIENCE} s"
            for line in output.read_text("utf-8").splitlines():
                result = json.loads(line)
                results[result.pop("module")] = result
        left = [name for name in left if name not in results]
        if left:
            results[left.pop(0)] = {"error": end}
    return results


def _seen(module: str) -> dict[str, Any]:
    """What is known of a module that is not imported: whether it is there, and its version."""
    if importlib.util.find_spec(module) is None:
        return {"error": f"ModuleNotFoundError: No module named '{module}'", "missing": True}
    with contextlib.suppress(PackageNotFoundError):
        return {"version": version(OPTIONAL[module].name if module in OPTIONAL else module)}
    return {"version": ""}


def probe() -> None:
    """Import the modules that the command line names, and write a line of JSON about each.

    `probe_all` runs this in a process of its own.
    """
    output, folder, *modules = sys.argv[1:]
    with open(output, "a", encoding="utf-8") as stream:
        for name in modules:
            result: dict[str, Any] = {"module": name}
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    module = importlib.import_module(name)
                    result["version"] = str(getattr(module, "__version__", ""))
                    result["facts"] = FACTS[name](module, Path(folder)) if name in FACTS else {}
            except Exception as error:
                first_line = str(error).strip().partition("\n")[0]
                result["error"] = f"{type(error).__name__}: {first_line}"
                result["missing"] = isinstance(error, ModuleNotFoundError) and error.name == name
            stream.write(json.dumps(result) + "\n")
            stream.flush()


def _torch_facts(torch: Any, folder: Path) -> dict[str, Any]:
    """torch's CUDA version, threads and devices."""
    import numpy as np

    torch.from_numpy(
        np.zeros(2, np.float32)
    ).numpy().sum()  # this raises if torch was built for another numpy
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    devices = [torch.cuda.get_device_properties(i) for i in range(count)]
    return {
        "cuda": torch.version.cuda,
        "mps": torch.backends.mps.is_available(),
        "threads": torch.get_num_threads(),
        "devices": [
            {"name": gpu.name, "memory": gpu.total_memory, "capability": f"{gpu.major}.{gpu.minor}"}
            for gpu in devices
        ],
    }


def _h5py_facts(h5py: Any, folder: Path) -> dict[str, Any]:
    """HDF5's version, and, where that can be seen, whether it locks files in `folder`."""
    try:
        import fcntl
    except ImportError:  # Windows
        return {"hdf5": h5py.version.hdf5_version}
    locks, path = False, folder / f".shic.{os.getpid()}.h5"
    try:
        with h5py.File(path, "w"), open(path, "rb") as other:
            try:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                locks = True
    except OSError:  # the folder's section gives the reason
        pass
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
    return {"hdf5": h5py.version.hdf5_version, "locks": locks}


def _warp_facts(warp: Any, folder: Path) -> dict[str, Any]:
    """The folder of Warp's kernel cache, and whether it can be written to."""
    warp.config.quiet = True
    try:
        warp.init()
    except OSError as error:  # it can't make the folder, as without a home
        return {"cache": str(error.filename), "writable": False}
    cache = Path(warp.config.kernel_cache_dir)
    return {"cache": str(cache), "writable": os.access(_there(cache), os.W_OK)}


FACTS = {"torch": _torch_facts, "h5py": _h5py_facts, "warp": _warp_facts}


def _packages(report: Report, probes: dict[str, dict[str, Any]]) -> None:
    """Add the section of packages, and a fault for each that is missing, broken or too old."""
    report.sections["packages"] = {}
    for package, (module, least) in PACKAGES.items():
        result = probes[module]
        try:
            installed = version(package)
        except PackageNotFoundError:
            installed = result.get("version", "")
        report.sections["packages"][package] = {"version": installed, "error": result.get("error", "")}
        again = f"python -m pip install --force-reinstall '{package}>={least}'"
        if "error" in result:
            fault = "is not installed" if result.get("missing") else f"can't be imported ({result['error']})"
            both = " torch" if package == "numpy" else " numpy" if "numpy" in result["error"].lower() else ""
            report.faults.append((f"{package} {installed}".strip() + f" {fault}", again + both))
        elif _numbers(installed) < _numbers(least):
            report.faults.append((f"{package} {installed} is older than {least}", again))
    if not probes["warp"].get("facts", {}).get("writable", True):
        cache = probes["warp"]["facts"]["cache"]
        report.faults.append(
            (
                f"warp's kernel cache {cache} can't be written to",
                "make it writable, or set WARP_CACHE_PATH to a folder",
            )
        )


def _numbers(text: str) -> tuple[int, ...]:
    """The first three numbers of a version."""
    return tuple(int(part) for part in re.findall(r"\d+", text.partition("+")[0])[:3])


def _parts(report: Report, probes: dict[str, dict[str, Any]]) -> None:
    """Add the sections of optional packages and of parts that other packages add."""
    report.sections["optional"] = {}
    for module, package in OPTIONAL.items():
        result, name = probes[module], package.name
        missing = result.get("missing", False)
        error = "" if missing else result.get("error", "")
        installed = None if missing else result.get("version", "")
        entry = {"version": installed, "error": error, "for": package.purpose}
        report.sections["optional"][name] = entry | ({"comes with": package.install} if missing else {})
        if error:
            report.faults.append(
                (f"{name} is installed but can't be imported ({error})", f"reinstall it, or uninstall {name}")
            )
        elif installed and _numbers(installed) < _numbers(package.least):
            again = f"python -m pip install '{name}>={package.least}'"
            report.faults.append((f"{name} {installed} is older than {package.least}", again))
    added = [(group, point) for group in GROUPS for point in entry_points(group=group)]
    plugin_probes = probe_all([(point.module, "") for _, point in added], Path.cwd()) if added else {}
    report.sections["plugins"] = {}
    for group, point in added:
        error = plugin_probes[point.module].get("error", "")
        report.sections["plugins"][f"{group}: {point.name}"] = {"from": point.value, "error": error}
        if error:
            report.faults.append(
                (
                    f"{group} {point.name}: {point.module} can't be imported ({error})",
                    "reinstall the package that adds it",
                )
            )


def _devices(report: Report, probes: dict[str, dict[str, Any]]) -> None:
    """Add the section of devices, and a fault if torch does not use the GPU's driver."""
    facts, driver = probes["torch"].get("facts", {}), Path("/proc/driver/nvidia/version")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    report.sections["devices"] = {
        "cpu": {"cores": cores, **_memory()},
        "cuda": facts.get("devices", []),
        "torch cuda": facts.get("cuda"),
        "mps": facts.get("mps"),
    }
    if facts and not facts["devices"] and driver.exists():
        address = "https://pytorch.org/get-started/locally/"
        fix = f"install the torch that the driver can run ({address}), or give --device cpu"
        report.faults.append(
            (f"there is an NVIDIA driver, but torch (CUDA {facts['cuda']}) finds no device", fix)
        )


def _memory() -> dict[str, int]:
    """Bytes of memory: `memory` is the total, `free` is available; nothing where psutil is broken."""
    try:
        import psutil
    except ImportError:  # the section of packages names it
        return {}
    memory = psutil.virtual_memory()
    return {"memory": memory.total, "free": memory.available}


def _weights(report: Report, weights: Path | None) -> None:
    """Add the section of weights: the folder of each model, or "" if it is not on this machine."""
    from shic_cli.parts.weights import MODELS, locate

    report.sections["weights"] = {}
    for name in MODELS:
        try:
            report.sections["weights"][name] = str(locate(name, weights))
        except UnfinishedError:
            report.sections["weights"][name] = "not finished"
        except (
            ShicError,
            ImportError,
            OSError,
            AttributeError,
        ):  # the section of packages names a broken one
            report.sections["weights"][name] = ""


def _cache() -> Path:
    """The folder of the hub's cache, whether or not it exists."""
    home = os.environ.get("HF_HOME") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface"
    )
    return Path(os.path.expanduser(os.environ.get("HF_HUB_CACHE") or os.path.join(home, "hub")))


def _there(folder: Path) -> Path:
    """The folder, or the nearest existing one above it."""
    candidates = (folder.absolute(), *folder.absolute().parents)
    return next(candidate for candidate in candidates if candidate.is_dir())


def _disk(report: Report, folder: Path, name: str, instead: str) -> None:
    """Add the section `name` of a folder's disk, and a fault if it can't be written to or is almost full."""
    existing = _there(folder)
    free, writable = shutil.disk_usage(existing).free, os.access(existing, os.W_OK | os.X_OK)
    report.sections[name] = {
        "path": str(folder.absolute()),
        "free": free,
        "writable": writable,
        "type": file_system(existing),
    }
    if not writable:
        report.faults.append((f"{existing} can't be written to", f"make it writable for you, {instead}"))
    elif free < LITTLE:
        report.faults.append((f"{existing} has {free / 1e6:.0f} MB of free disk", f"make room, {instead}"))


def file_system(folder: Path) -> str:
    """The type of the file system of `folder`, as the system names it; empty if it does not say."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        return ""
    path = folder.resolve()
    above = [
        (place, kind)
        for place, kind in ((point.replace("\\040", " "), kind) for point, kind in mounts)
        if path.is_relative_to(place)
    ]
    return max(above, key=lambda mount: len(mount[0]), default=("", ""))[1]


def _locks(report: Report, folder: Path, probes: dict[str, dict[str, Any]]) -> None:
    """Add to the section `folder` whether files there can be locked."""
    try:
        locks = has_locks(folder)
    except OSError:  # the folder can't be written to, which is already a fault
        return
    report.sections["folder"] |= {"locks": locks, "HDF5 locks": probes["h5py"].get("facts", {}).get("locks")}
