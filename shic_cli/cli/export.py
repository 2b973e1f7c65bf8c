"""`shic export`."""

from __future__ import annotations

from pathlib import Path

import click

from shic_cli.base.result_settings import ExportConfig
from shic_cli.cli import options


@click.command("export")
@click.argument("file", metavar="MAPS|TEMPLATE|MODEL", type=click.Path(path_type=Path))
@options.output("", "The file to write; its ending says what.")
@click.option(
    "--template",
    type=click.Path(path_type=Path),
    help="The maps' template.  [default: model.safetensors or template.h5]",
)
@click.option("--only", metavar="PATTERN", multiple=True, help="Photos whose names fit; may be repeated.")
@click.option(
    "--points",
    type=click.Path(path_type=Path),
    help="A keypoints.json of `shic annotate`: COCO keypoints at its names' vertices.",
)
@options.class_name
@options.settings(ExportConfig)
@options.weights
@options.seed
@options.overwrite
@options.as_json
def command(
    file: Path, output: Path | None, template: Path | None, only: tuple[str, ...], points: Path | None,
    class_name: str, config: ExportConfig, weights: Path | None, seed: int, overwrite: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Write a template, maps or a model as a file for other programs.

    \b
    template.h5 -o t.glb, t.ply    the mesh, with its vertex colours
    template.h5 -o paint.png       the texture to paint on
    maps.h5 -o animal.glb          the mesh, with a texture that the photos give
    maps.h5 -o animal.ply          the mesh, with vertex colours that the photos give
    maps.h5 -o points.csv, .npz    every pixel: image, x, y, the mesh file's vertex, score
    maps.h5 -o coco.json           COCO: masks, DensePose points, keypoints with --points
    maps.h5 -o clip.mp4            a video of the maps
    model.safetensors -o net.onnx  the network; .glb and .ply its mesh
    """
    from shic_cli.cli.console import track
    from shic_cli.cli.ending import Ending
    from shic_cli.files.atomic import check_there
    from shic_cli.learning.model_file import read_surface
    from shic_cli.stages import export

    if output is None:
        raise click.UsageError("name the file to write with -o; its ending says what")
    check_there(template, points)
    with Ending(as_json) as end:
        end.wrote(output)
        if file.suffix == ".safetensors" and output.suffix.lower() == ".onnx":
            said = _onnx(file, output, weights, overwrite)
        elif file.suffix == ".safetensors" or export.kind_of(file) == "shic/template":
            said = export.export_surface(read_surface(file), output, overwrite)
        else:
            maps = export.Maps.of(file, template, only, config, track)
            said = export.export_maps(maps, output, points, class_name or "object", seed, overwrite)
        end.holds = said


def _onnx(model: Path, output: Path, weights: Path | None, overwrite: bool) -> str:
    import torch

    from shic_cli.files.atomic import atomic
    from shic_cli.stages.export_onnx import write_onnx
    from shic_cli.stages.predict import Predictor

    predictor = Predictor(model, torch.device("cpu"), weights=weights)
    with atomic(output, overwrite) as partial:
        write_onnx(partial, predictor)
    return "the network, checked with ONNX Runtime"
