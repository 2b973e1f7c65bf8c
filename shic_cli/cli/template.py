"""Define the commands of `shic template`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from shic_cli.base.settings import TemplateConfig
from shic_cli.cli import options

if TYPE_CHECKING:
    import numpy as np

    from shic_cli.files.layouts import Template


@click.group("template")
def command() -> None:
    """Prepare a mesh as the template of a class, or fetch one."""


@command.command("prep", short_help="Make a template of a mesh file.")
@click.argument("mesh", type=click.Path(path_type=Path))
@options.output("template.h5", "The template file to write.")
@options.settings(TemplateConfig)
@click.option(
    "--geodesics",
    type=click.Path(path_type=Path),
    help="The mesh catalogue's distances (.pkl) in place of computed ones.",
)
@click.option(
    "--symmetry",
    type=click.Path(path_type=Path),
    help="The mesh catalogue's symmetry (.pkl) in place of the one found.",
)
@click.option("--uv-template", type=click.Path(path_type=Path), help="PNG to write: the texture to paint on.")
@click.option(
    "--picture",
    type=click.Path(path_type=Path),
    help="PNG to write: the template from four sides.  [default: beside the template, .png]",
)
@options.device
@options.overwrite
@options.as_json
def prep(
    mesh: Path,
    output: Path,
    config: TemplateConfig,
    geodesics: Path | None,
    symmetry: Path | None,
    uv_template: Path | None,
    picture: Path | None,
    device: str,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Clean, orient and measure MESH, and write it as a template.

    MESH is an obj, ply, off, stl, glb or gltf file, or a pkl of the DensePose mesh catalogue.

    --vertices 0 keeps the vertices of the mesh in their order. No code in a pkl is run: only arrays of
    numbers are read from it.
    """
    from shic_cli.base.devices import resolve_device
    from shic_cli.cli.console import track
    from shic_cli.cli.ending import Ending
    from shic_cli.files.atomic import atomic, check_target, check_there
    from shic_cli.files.photos import encode
    from shic_cli.files.pictures import is_marked, marked
    from shic_cli.stages.template import prepare, with_catalogue, write
    from shic_cli.stages.template_pictures import sides_picture, uv_picture

    replaced = overwrite or (picture is None and is_marked(output.with_suffix(".png")))
    picture = picture or output.with_suffix(".png")
    pictures: dict[Path, Callable[[Template], np.ndarray]] = {picture: sides_picture}
    if uv_template == picture:
        raise click.UsageError(
            f"{picture} is the file of two pictures: give another --picture or --uv-template"
        )
    if uv_template:
        pictures[uv_template] = uv_picture
    check_there(mesh, geodesics, symmetry)
    check_target(output, overwrite)
    for target in pictures:
        check_target(target, replaced if target is picture else overwrite)
    with Ending(as_json) as end:
        end.look = f"{picture} (which way it stands and faces)"
        end.next = "shic pseudo-gt imgs/" + options.unless_default("template", output, "template.h5")
        made = prepare(mesh, config, track, resolve_device(device))
        if geodesics or symmetry:
            made = with_catalogue(made, geodesics, symmetry)
        for path, draw in pictures.items():
            with atomic(path, replaced if path is picture else overwrite) as partial:
                partial.write_bytes(marked(encode(draw(made))))
        # last: where it is, a run that was killed has made the pictures too
        write(output, made, config, mesh, overwrite, geodesics=geodesics, symmetry=symmetry)
        end.wrote(output, *pictures)


@command.command("get", short_help="Fetch the mesh of an animal by its name.")
@click.argument("name", default="")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="The mesh file to write.  [default: NAME.glb]"
)
@options.overwrite
@options.as_json
def get(name: str, output: Path | None, overwrite: bool, as_json: bool) -> None:
    """Fetch the mesh of an animal by its NAME: horse, donkey, cow, bull, deer, alpaca, dog, wolf, fox, frog,
    shark, dolphin, whale, fish, bird, eagle, trex, velociraptor, stegosaurus or triceratops.

    The meshes are by Quaternius, the two birds by Mesh2Motion; both gave them to the public domain (CC0 1.0).
    """
    from shic_cli.cli.ending import Ending
    from shic_cli.parts.meshes import fetch, find

    animal, output = find(name), output or Path(f"{name}.glb")
    with Ending(as_json) as end:
        end.holds = animal.licence
        end.details = {"licence": animal.licence, "address": animal.address}
        end.next = f"shic template prep {output} {animal.options}".rstrip()
        fetch(name, output, overwrite)
        end.wrote(output)
