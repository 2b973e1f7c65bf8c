"""Bodies from photos: how `shic fit` found a class to hold itself in its photos.

K vertices, N photos.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from shic_cli.base.errors import InputError, counted
from shic_cli.files.items import ItemReader
from shic_cli.files.layouts import Template
from shic_cli.files.names import check_template

log = logging.getLogger("shic")


def read_bodies(path: Path, template: Template, needed: bool = False) -> np.ndarray:
    """The bodies `(N, K, 3)` f4 of the photos of a maps file that have one.

    InputError if the file is of another template, if a body has not its K vertices, or if no photo has one
    where some are `needed`.
    """
    reader, shape = ItemReader(path, "shic/maps"), template.verts.shape
    check_template(reader, template.fingerprint)
    items = reader if reader.header.attrs["labels"] == "fitted" else ()
    bodies = [(item.name, item.body) for item in items if "body" in item.arrays]
    for name, body in bodies:
        if body.shape != shape:
            fact = f"{path}: {name}: its body has {len(body)} vertices, the template {shape[0]}"
            raise InputError(fact, "make the file again with `shic fit`")
    if bodies:
        log.info("%s: poses of %s", path, counted(len(bodies), "photos"))
        return np.stack([body for _, body in bodies])
    if needed:
        fact = f"{path}: none of its photos has a body that --photo-poses could pose pictures like"
        raise InputError(fact, "name a file of `shic fit`, or leave --photo-poses out")
    return np.zeros((0, *shape), np.float32)
