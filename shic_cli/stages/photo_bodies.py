"""Bodies from photos: how `shic fit` found a class to hold itself in its photos.

K vertices, N photos.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from shic_cli.base.errors import InputError
from shic_cli.files.items import ItemReader
from shic_cli.files.layouts import Template
from shic_cli.files.names import check_template


def read_bodies(path: Path, template: Template) -> np.ndarray:
    """The bodies `(N, K, 3)` f4 of the photos of a maps file that have one.

    InputError if the file is of another template, or if a body has not its K vertices.
    """
    reader, shape = ItemReader(path, "shic/maps"), template.verts.shape
    check_template(reader, template.fingerprint)
    bodies = [
        (name, item.arrays["body"])
        for name, item in zip(reader.names, reader, strict=True)
        if "body" in item.arrays
    ]
    for name, body in bodies:
        if body.shape != shape:
            fact = f"{path}: {name}: its body has {len(body)} vertices, the template {shape[0]}"
            raise InputError(fact, "make the file again with `shic fit`")
    return np.stack([body for _, body in bodies]) if bodies else np.zeros((0, *shape), np.float32)
