"""What `shic doctor` says of a machine: packages that are broken in every way, disks, caches, locks; and that
it works all the same.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from shic_cli.stages import doctor

ROOT = Path(__file__).parents[2]
STUBS = {
    "raises": "raise ImportError('undefined symbol: _ZN5torch')",
    "dies": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
    "leaves": "import sys; sys.exit('no licence')",
    "fine": "__version__ = '1.2'; print('noise on stdout')",
}


@pytest.fixture
def stubs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of modules that can't be imported, and one that can, on the path of new processes."""
    folder = tmp_path / "stubs"
    folder.mkdir()
    for name, text in STUBS.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return folder


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only packages that are imported in no time."""
    few = {name: doctor.PACKAGES[name] for name in ("numpy", "h5py", "click")}
    monkeypatch.setattr(doctor, "PACKAGES", few)
    real = doctor.probe_all
    nothing = {"torch": {"facts": {"devices": [], "cuda": None}}, "warp": {}}
    monkeypatch.setattr(doctor, "probe_all", lambda modules, folder: nothing | real(modules, folder))


def test_the_packages_are_those_of_the_project() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    always = [f"{name}>={least}" for name, (_, least) in doctor.PACKAGES.items()]
    somewhere = [line for line in wanted["dependencies"] if ";" in line]
    assert sorted(wanted["dependencies"]) == sorted([*always, *somewhere])
    tools = ("test", "dev", "docs", "all")
    extras = {
        f"{extra}: {line}"
        for extra, lines in wanted["optional-dependencies"].items()
        for line in lines
        if extra not in tools and not line.startswith("shic[")
    } | {f": {line.partition(';')[0]}" for line in somewhere}
    assert extras == {
        f"{package.extra or 'pytorch3d' * (package.name == 'pytorch3d')}: {package.name}>={package.least}"
        for package in doctor.OPTIONAL.values()
    }
    combined = wanted["optional-dependencies"]["all"][0]
    reached = {*re.findall(r"\w+", combined.partition("[")[2]), "models"}  # diffusion takes models along
    assert {package.extra for package in doctor.OPTIONAL.values()} - {""} == reached


def test_every_way_of_being_broken_is_found_and_the_next_package_still_tried(
    stubs: Path, tmp_path: Path
) -> None:
    found = doctor.probe_all(
        [(name, "") for name in ("raises", "dies", "leaves", "nowhere", "fine")], tmp_path
    )
    assert found["raises"] == {"error": "ImportError: undefined symbol: _ZN5torch", "missing": False}
    assert found["dies"]["error"] == "killed by signal 11"
    assert found["leaves"]["error"] == "ended the process with status 1 (no licence)"
    assert found["nowhere"]["missing"] and "nowhere" in found["nowhere"]["error"]
    assert found["fine"] == {"version": "1.2", "facts": {}}


def test_a_package_whose_import_never_ends_is_found_too(
    stubs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "PATIENCE", 8)
    (stubs / "hangs.py").write_text("import time; time.sleep(600)")
    found = doctor.probe_all([("hangs", ""), ("fine", "")], tmp_path)
    assert found["hangs"]["error"] == "did not end within 8 s" and found["fine"]["version"] == "1.2"


def test_a_broken_torch_is_named_with_its_fix(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text(STUBS["raises"])
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    line = [sys.executable, "-m", "shic_cli", "doctor", "--json"]
    done = subprocess.run(line, env=environment, cwd=tmp_path, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert (
        "undefined symbol" in found["packages"]["torch"]["error"] and not found["packages"]["h5py"]["error"]
    )
    fault = next(each for each in found["faults"] if each["what"].startswith("torch"))
    assert "can't be imported" in fault["what"] and "pip install" in fault["fix"]
    assert any(
        line.startswith("shic: error: torch") and "pip install" in line for line in done.stderr.splitlines()
    )


def test_what_is_well_is_status_0_and_secrets_are_not_shown(
    quick: None, tmp_path: Path, shic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    status, out, err = shic("doctor")
    assert (
        (status, err) == (0, "")
        and "HF_TOKEN: (set)" in out
        and "hf_secret" not in out
        and "HDF5 locks: yes" in out
    )
    assert not list(tmp_path.glob(".*"))
    status, out, _ = shic("doctor", "--json")
    found = json.loads(out)
    assert (
        status == 0
        and found["faults"] == []
        and found["packages"]["numpy"]["version"]
        and found["folder"]["locks"]
    )
    assert set(found["weights"]) >= {"dinov2-small", "sd15"} and not any(found["weights"].values())


@pytest.mark.parametrize(
    ("change", "what", "fix"),
    [
        ("full", "free disk", "make room"),
        ("locked", "can't be written to", "HF_HOME"),
        ("old", "click 8.0 is older than 8.1", "pip install"),
        ("gone", "numpy is not installed", "pip install"),
    ],
)
def test_what_is_broken_is_status_1_with_a_fix(
    quick: None, shic, monkeypatch: pytest.MonkeyPatch, change: str, what: str, fix: str
) -> None:
    if change == "full":
        usage = shutil.disk_usage("/")
        monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage._replace(free=5_000_000))
    elif change == "locked":
        monkeypatch.setattr(doctor.os, "access", lambda path, mode: False)
    elif change == "old":
        real = doctor.version
        monkeypatch.setattr(doctor, "version", lambda package: "8.0" if package == "click" else real(package))
    else:
        real_probe = doctor.probe_all
        gone = {"numpy": {"error": "ModuleNotFoundError: No module named 'numpy'", "missing": True}}
        monkeypatch.setattr(doctor, "probe_all", lambda modules, folder: real_probe(modules, folder) | gone)
        monkeypatch.setattr(doctor, "version", lambda package: "")
    status, _, err = shic("doctor")
    assert status == 1 and any(what in line and fix in line for line in err.splitlines()), err


def test_the_file_system_is_that_of_the_nearest_mount() -> None:
    assert doctor.file_system(Path("/proc/self")) == "proc"


def test_a_folder_that_may_not_be_written_to_is_not_the_fault_of_hdf5(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read-only file system refuses removing too."""

    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise OSError(30, "Read-only file system")

    class Library:
        class version:
            hdf5_version = "2"

        @staticmethod
        def File(path: Path, mode: str) -> None:
            refuse(path)

    monkeypatch.setattr(Path, "unlink", refuse)
    assert doctor._h5py_facts(Library, tmp_path) == {"hdf5": "2", "locks": False}


def test_slow_packages_are_imported_only_where_that_is_asked_for(
    shic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken one is told by --full; a missing one always."""
    tried: list[str] = []

    def probe_all(modules: list[tuple[str, str]], folder: Path) -> dict:
        tried.extend(module for module, _ in modules)
        broken = {"error": "ImportError: broken", "missing": False}
        fine = {"version": "99", "facts": {"devices": [], "cuda": None}}
        return {module: broken if module == "diffusers" else fine for module, _ in modules}

    monkeypatch.setattr(doctor, "probe_all", probe_all)
    assert shic("doctor")[0] == 0 and not set(doctor.SLOW) & set(tried) and "torch" in tried
    status, _, err = shic("doctor", "--full")
    assert (
        status == 1 and "diffusers" in err and "can't be imported" in err and set(doctor.SLOW) <= set(tried)
    )
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    status, _, err = shic("doctor")
    assert status == 1 and "trimesh" in err and "is not installed" in err and "transformers" not in err
    out = shic("doctor")[1]
    assert (
        "  matplotlib: no, for the plots of eval geodesic --report, comes with pip install 'shic[report]'"
        in out
    )


def test_without_a_home_the_place_of_the_kernels_is_to_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Warp does not start then, and to install it again would not help."""

    class Warp:
        class config:
            quiet = False

        @staticmethod
        def init() -> None:
            raise PermissionError(13, "Permission denied", "/nonexistent")

    facts = doctor.FACTS["warp"](Warp, Path())
    assert facts == {"cache": "/nonexistent", "writable": False}
    probes = {module: {"version": "99", "facts": {}} for module, _ in doctor.PACKAGES.values()}
    report = doctor.Report()
    doctor._packages(report, probes | {"warp": {"version": "99", "facts": facts}})
    [(what, fix)] = [fault for fault in report.faults if "warp" in fault[0]]
    assert what == "warp's kernel cache /nonexistent can't be written to" and "WARP_CACHE_PATH" in fix
