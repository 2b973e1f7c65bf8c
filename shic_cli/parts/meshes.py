"""Meshes that `shic template get` fetches by name.

Their makers gave them to the public domain (CC0 1.0). They come from public copies, at a commit, and are
checked by their digests.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from shic_cli.base.errors import SettingError
from shic_cli.files.atomic import atomic
from shic_cli.parts.outside import download


@dataclass(frozen=True)
class Source:
    """A public copy of meshes: who made them, and the address of its folder at a commit."""

    maker: str
    folder: str


QUATERNIUS = Source(
    "Quaternius",
    "https://raw.githubusercontent.com/trebeljahr/quaternius-showcase/"
    "eab2e43a7e688dad1cc6be764c1c4ba593e1961c/public/glb",
)
MESH2MOTION = Source(
    "Mesh2Motion",
    "https://raw.githubusercontent.com/Mesh2Motion/mesh2motion-app/"
    "029e46c7cd12a087a1100d303c91e7dca8f3ef8f/static",
)


@dataclass(frozen=True)
class Animal:
    """A mesh: its `file` in the copy `source`, the sha256 of it, and the `options` of `shic template prep`
    that it needs.
    """

    file: str
    digest: str
    options: str = ""
    source: Source = QUATERNIUS

    @property
    def address(self) -> str:
        """Where it is fetched from."""
        return f"{self.source.folder}/{self.file}"

    @property
    def licence(self) -> str:
        """What may be done with it, and who made it."""
        return f"CC0 1.0, by {self.source.maker}"


MESHES = {
    "horse": Animal(
        "animals_pack/Horse.glb", "fbddb2c97179eca896ec69c985cd9cc74540484510776c400df64e088e9f2414"
    ),
    "donkey": Animal(
        "animals_pack/Donkey.glb", "79cbb14d88a2ca416a858f72dbca81e4280d62e00245116deec28902a08d5cd3"
    ),
    "cow": Animal("animals_pack/Cow.glb", "23f82a318dd3c05f94b8c4d377752a33d4dabefd244f6f4548102aee36be183e"),
    "bull": Animal(
        "animals_pack/Bull.glb", "92cb51be2846adb2b0b66cac2e0f82e4d7ea5cdd183a4db4a61fb1a28e7c3ad7"
    ),
    "deer": Animal(
        "animals_pack/Deer.glb", "b6558249bfb225313c35dd1b6c91d832b2031d064039bb6b3600a624a882a174"
    ),
    "alpaca": Animal(
        "animals_pack/Alpaca.glb", "7af78b392e3ce2a03e1a6ed0cee090ab95fadfca55f05e2978c1a590b05f0796"
    ),
    "dog": Animal(
        "animals_pack/ShibaInu.glb", "4c8d4d9361a3abd4ef08a9a09aeabf1eb5d4cbddfd4ce271aacf64a254f1dbc1"
    ),
    "wolf": Animal(
        "animals_pack/Wolf.glb", "8382f3d3b97e2338d2fd26190ddcc095d34d642d0e97105bda807ec87ccfd534"
    ),
    "fox": Animal("animals_pack/Fox.glb", "1785e9ce836107276853a8a8183d7c6fa14e5befbd105d79be1fb7e38de9f446"),
    "frog": Animal(
        "easy_enemies_pack/Frog.glb", "92dc96c90e7228676f8c43dc7711ba5ed5505029ebb2f6d4ad198d9e35bdbfe0"
    ),
    "shark": Animal(
        "fish_pack/Shark.glb", "6d5cf3cd7ea749583b622a306cfcae4de85432efcc74a1ec6f52e5430cf13aff"
    ),
    "dolphin": Animal(
        "fish_pack/Dolphin.glb",
        "3c8bdc0440b5585c15c753a6b6a07f57a80ce3f33f58333c804069c714dd9993",
        "--front +z",
    ),
    "whale": Animal(
        "fish_pack/Whale.glb", "153d6814c67039378fce22d4c347ed35d7febf2bedac866de91cf9b5dd7945f2"
    ),
    "fish": Animal("fish_pack/Fish1.glb", "bfea34878b92eb05d9b2c584c3a9e97abe2b402141b9c7b4b3f1ecb55a29df02"),
    "bird": Animal(
        "models/model-bird.glb",
        "6d66addfe2108c420abd35c9c98a0084dbcb20ed33129e619df7f8c5a8e7d84f",
        source=MESH2MOTION,
    ),
    "eagle": Animal(
        "models-variation/bird-eagle.glb",
        "8321c6df6ddba0a17e204e7ba704f65d3737e7677cb9682d62a6ea2befca9e56",
        source=MESH2MOTION,
    ),
    "trex": Animal(
        "dinosaurs_pack/Trex.glb", "e1c9862deef89f096c7d85dacf62aa9ce48089e5867d2bf632ed1e1733013349"
    ),
    "velociraptor": Animal(
        "dinosaurs_pack/Velociraptor.glb", "1d9ecad0a65c0c858a216ff25f224d02b18ce86fa0ed4df8f9ecece43f3a745c"
    ),
    "stegosaurus": Animal(
        "dinosaurs_pack/Stegosaurus.glb", "a3dff577342e98f847d1ec4985f28d594c47d2e7d9b05cab78ae8aecf2272f35"
    ),
    "triceratops": Animal(
        "dinosaurs_pack/Triceratops.glb", "79ade346de5e778a58ce8c253c7e6dbd505499176a616583d1a29fa4624f498c"
    ),
}


def find(name: str) -> Animal:
    """The mesh `name`; SettingError with the names that there are if it is none of them."""
    if name in MESHES:
        return MESHES[name]
    near = difflib.get_close_matches(name, MESHES, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    fact = f"there is no mesh {name!r}" if name else "name the mesh to fetch"
    raise SettingError(fact, f"{hint}there are: {', '.join(MESHES)}")


def fetch(name: str, target: Path, overwrite: bool = False) -> None:
    """Write the mesh `name` to `target`.

    SettingError if there is none, ShicError if `target` is there already or the network does not answer.
    """
    animal = find(name)
    with atomic(target, overwrite) as partial:
        partial.write_bytes(download(animal.address, animal.digest))
