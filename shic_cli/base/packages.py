"""The packages that a plain installation leaves out: what each is for, and which extra brings it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from shic_cli.base.errors import MissingError


@dataclass(frozen=True)
class Package:
    """An optional package: its name for pip, the first version that works, the extra of pyproject.toml that
    brings it ("" for none), and what it is for.
    """

    name: str
    least: str
    extra: str
    purpose: str

    @property
    def install(self) -> str:
        """The command that installs it."""
        wanted = f"shic[{self.extra}]" if self.extra else f"{self.name}>={self.least}".rstrip(">=")
        return f"pip install '{wanted}'"


# By the module that is imported; `shic doctor` lists them.
OPTIONAL = {
    "huggingface_hub": Package("huggingface-hub", "1.0", "models", "fetching, finding and sharing models"),
    "transformers": Package("transformers", "5.0", "models", "DINO, SAM and other models"),
    "diffusers": Package("diffusers", "0.36", "diffusion", "Stable Diffusion"),
    "accelerate": Package("accelerate", "1.0", "diffusion", "Stable Diffusion on a small GPU (--offload)"),
    "matplotlib": Package("matplotlib", "3.8", "report", "the plots of eval geodesic --report"),
    "av": Package("av", "12", "formats", "mp4 files that export writes"),
    "DracoPy": Package("DracoPy", "1.7", "formats", "glTF that Draco has compressed"),
    "pillow_heif": Package("pillow-heif", "0.21", "formats", "HEIC photos"),
    "onnx": Package("onnx", "1.16", "onnx", "ONNX files that export writes"),
    "onnxruntime": Package("onnxruntime", "1.18", "onnx", "the check of ONNX files"),
    "xatlas": Package("xatlas", "0.0.9", "", "textures with few seams; a simpler unwrap takes its place"),
    "pytorch3d": Package("pytorch3d", "0.7.8", "", "rendering; Warp takes its place"),
}


def require(module: str, wanted: str) -> None:
    """Nothing where the optional `module` is installed; it is not imported.

    Else MissingError (status 3), which says that `wanted` needs it and how to install it.
    """
    if importlib.util.find_spec(module) is None:
        raise _missing(OPTIONAL.get(module, Package(module, "", "", "")), wanted)


@contextmanager
def needed(wanted: str) -> Iterator[None]:
    """In the block optional packages are imported; MissingError (status 3) if one of them is missing or
    broken, which says that `wanted` needs it and how to install it.
    """
    try:
        yield
    except ImportError as error:
        module = (error.name or "").partition(".")[0]
        package = OPTIONAL.get(module)
        if package is not None and importlib.util.find_spec(module) is None:
            raise _missing(package, wanted) from error
        raise MissingError(
            f"{wanted}: a package that it needs can't be imported ({error})",
            "`shic doctor --full` says which is broken",
        ) from error


def _missing(package: Package, wanted: str) -> MissingError:
    return MissingError(f"{wanted} needs the package {package.name}, which is not installed", package.install)
