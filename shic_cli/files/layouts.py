"""The layouts of the four kinds of HDF5 file, and the template in memory.

arrays.py and items.py read and write the files, with the tools of hdf5.py; no other module opens one.

Axes: K vertices, F faces, T texture coordinates, M vertices of the mesh file, Q eigenvectors, N views, H by W
pixels, D channels, h by w cells. Every file has the root attributes `format`, `format_version`,
`shic_version`, `params` (JSON of the settings) and `sources` (JSON: role -> path and content hash); further
attributes are named in LAYOUTS.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np

VERSION = 1


@dataclass(frozen=True)
class Field:
    """One data set: dtype, axes by letter (a number is a fixed size), what it holds, and its range.

    `optional`: a file may lack it. The range of numbers that point to another data set is that one's length.
    """

    dtype: str
    axes: tuple[str | int, ...]
    doc: str
    optional: bool = False
    low: float = -np.inf
    high: float = np.inf


@dataclass(frozen=True)
class Layout:
    """One kind of file: its data sets at the root and in each group of `items`, and its own root attributes.

    `maker` is the command that makes it; `others` is what a message adds to it.
    """

    fields: dict[str, Field]
    items: dict[str, Field]
    attrs: tuple[str, ...]
    maker: str
    others: str = ""

    @property
    def makers(self) -> str:
        """The commands that make it, as a message names them."""
        return f"`{self.maker}`{self.others}"


VOID = Field("b1", ("H", "W"), "pixels of a label map that are neither object nor background", optional=True)
LAYOUTS: dict[str, Layout] = {
    "shic/template": Layout(
        fields={
            "verts": Field("f4", ("K", 3), "centred, longest side 1, +y up, +z front", low=-1, high=1),
            "faces": Field("i4", ("F", 3), "vertex numbers, counter-clockwise from outside"),
            "eigenvectors": Field(
                "f4", ("K", "Q"), "of the Laplace-Beltrami operator, without the constant one"
            ),
            "eigenvalues": Field("f4", ("Q",), "ascending"),
            "geodesic": Field("f4", ("K", "K"), "distances, symmetric, largest 228", low=0, high=229),
            "mirror": Field("i4", ("K",), "the vertex across the mirror plane"),
            "colors": Field("u1", ("K", 3), "a distinct smooth colour for each vertex, RGB"),
            "uv": Field("f4", ("T", 2), "texture coordinates, (0, 0) at the bottom left", low=0, high=1),
            "face_uv": Field("i4", ("F", 3), "each face corner's row of uv"),
            "source_to_vertex": Field("i4", ("M",), "nearest vertex of every vertex of the mesh file"),
        },
        items={},
        attrs=("mirror_axis",),
        maker="shic template prep",
    ),
    "shic/views": Layout(
        fields={
            "image": Field("u1", ("N", "H", "W", 3), "RGB"),
            "depth": Field("f4", ("N", "H", "W"), "view-space z, -1 where there is no surface"),
            "mask": Field("b1", ("N", "H", "W"), "the surface"),
            "face": Field("i4", ("N", "H", "W"), "face number, -1 for none", low=-1),
            "bary": Field("f4", ("N", "H", "W", 3), "barycentric coordinates, -1 for none"),
            "rotation": Field("f4", ("N", 3, 3), "R of X_view = X_world R + T"),
            "translation": Field("f4", ("N", 3), "T"),
            "focal": Field("f4", ("N",), "in normalised device coordinates"),
            "principal": Field("f4", ("N", 2), "x and y in normalised device coordinates"),
            "vertex_yx": Field("f4", ("N", "K", 2), "v_i(k) of Eq. 1"),
            "vertex_visible": Field("b1", ("N", "K"), "V_i"),
        },
        items={},
        attrs=("template",),
        maker="shic render",
    ),
    "shic/features": Layout(
        fields={
            "pca_mean": Field(
                "f4",
                ("C",),
                "the mean that is subtracted from features of length C before `pca_basis`",
                optional=True,
            ),
            "pca_basis": Field(
                "f4",
                ("C", "D"),
                "principal components in columns, the one of largest variance first",
                optional=True,
            ),
        },
        items={
            "feature": Field(
                "f2",
                ("D", "h", "w"),
                "unit vectors; missing where the extractor computes them from the mask alone",
                optional=True,
            ),
            "mask": Field("b1", ("H", "W"), "the object, in the photo's pixels"),
            "crop": Field(
                "i4", (3,), "top, left and side of the square that the features cover, in the photo's pixels"
            ),
            "encoded": Field("u1", ("B",), "the image file's own bytes"),
            "void": VOID,
        },
        attrs=("extractor", "fingerprint", "template"),
        maker="shic features",
    ),
    "shic/maps": Layout(
        fields={},
        items={
            "encoded": Field("u1", ("B",), "the image file's own bytes"),
            "mask": Field("b1", ("H", "W"), "the object"),
            "vertex": Field("i4", ("H", "W"), "vertex number, -1 for none", low=-1),
            "score": Field("f2", ("H", "W"), "how sure; the similarity, or the probability, 0 for none"),
            "uncertainty": Field(
                "f2",
                ("H", "W"),
                "the distance along the surface that the prediction may be off by: the expected one under its"
                " probabilities, of at most 228, 0 for none",
                optional=True,
                low=0,
                high=229,
            ),
            "body": Field(
                "f4",
                ("K", 3),
                "the vertices of the template, posed as in the photo, in the template's own frame",
                optional=True,
            ),
            "void": VOID,
        },
        attrs=("labels", "template"),
        maker="shic pseudo-gt",
        others=", or of a model's predictions with `shic predict`",
    ),
}
LABELS = ("pseudo", "synthetic", "predicted", "fitted", "annotated")
EXACT = ("synthetic", "fitted")  # labels that training takes as they are


@dataclass(frozen=True)
class Template:
    """`shic/template` in memory; the fields are those of its layout, as numpy arrays."""

    verts: np.ndarray
    faces: np.ndarray
    eigenvectors: np.ndarray
    eigenvalues: np.ndarray
    geodesic: np.ndarray
    mirror: np.ndarray
    colors: np.ndarray
    uv: np.ndarray
    face_uv: np.ndarray
    source_to_vertex: np.ndarray
    mirror_axis: str = "x"

    @cached_property
    def fingerprint(self) -> str:
        """Identifies the template in every file made from it: a hash of its vertices and faces."""
        return template_fingerprint(self.verts, self.faces)


def template_fingerprint(verts: np.ndarray, faces: np.ndarray) -> str:
    """SHA-256 of the vertices `(K, 3)` as f4 and the faces `(F, 3)` as i4, in hexadecimal."""
    data = np.ascontiguousarray(verts, "<f4").tobytes() + np.ascontiguousarray(faces, "<i4").tobytes()
    return hashlib.sha256(data).hexdigest()


SURFACE = ("verts", "faces", "mirror", "colors", "uv", "face_uv")


@dataclass(frozen=True)
class Surface:
    """The part of a template that pictures need, as numpy arrays with the axes of shic/template."""

    verts: np.ndarray
    faces: np.ndarray
    mirror: np.ndarray
    colors: np.ndarray
    uv: np.ndarray
    face_uv: np.ndarray

    @cached_property
    def fingerprint(self) -> str:
        """The template's fingerprint."""
        return template_fingerprint(self.verts, self.faces)

    @classmethod
    def of(cls, template: Template) -> Surface:
        """The surface of a template."""
        return cls(**{name: getattr(template, name) for name in SURFACE})
