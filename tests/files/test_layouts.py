"""The file kinds: what is written is read, what is damaged is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from shic_cli.base.errors import InputError, ShicError
from shic_cli.files import items
from shic_cli.files.arrays import read_arrays, read_template, source, write_arrays
from shic_cli.files.items import ItemReader, ItemWriter
from shic_cli.files.layouts import LAYOUTS, Surface, Template, template_fingerprint

ATTRS = {"labels": "pseudo", "template": "f" * 64}


def write_items(path: Path, names: tuple[str, ...] = ("b.jpg", "a.jpg")) -> Path:
    with ItemWriter(path, "shic/maps", params={"pool": "max"}, sources={}, attrs=ATTRS) as writer:
        for name in names:
            writer.add(name, **item(len(name)))
    return path


def item(height: int = 4) -> dict[str, np.ndarray]:
    vertex = np.arange(height * 3).reshape(height, 3) - 1
    return {
        "encoded": np.arange(7, dtype=np.uint8),
        "mask": vertex >= 0,
        "vertex": vertex,
        "score": vertex / 10,
    }


def test_a_template_comes_back(small_template: Template, small_template_file: Path) -> None:
    found = read_template(small_template_file)
    for name in LAYOUTS["shic/template"].fields:
        assert np.array_equal(getattr(found, name), getattr(small_template, name)), name
    assert found.fingerprint == small_template.fingerprint and found.mirror_axis == "x"


def test_arrays_are_packed_and_shuffled_which_halves_them(small_template_file: Path) -> None:
    with h5py.File(small_template_file, "r") as file:
        for data in file.values():
            assert (data.compression, data.compression_opts, data.shuffle) == ("gzip", 1, True)


def test_fingerprint_is_of_vertices_and_faces(small_template: Template) -> None:
    verts, faces = small_template.verts, small_template.faces
    assert template_fingerprint(verts.astype(float), faces.astype(np.int64)) == small_template.fingerprint
    assert template_fingerprint(verts + np.float32(1e-3), faces) != small_template.fingerprint
    assert template_fingerprint(verts, faces[:, [1, 2, 0]]) != small_template.fingerprint
    assert Surface.of(small_template).fingerprint == small_template.fingerprint


def test_distances_may_be_rounded_and_a_template_have_no_eigenvectors(
    small_template_file: Path, small_template: Template, tmp_path: Path
) -> None:
    arrays = {name: getattr(small_template, name) for name in LAYOUTS["shic/template"].fields}
    arrays |= {"eigenvectors": np.zeros((642, 0)), "eigenvalues": np.zeros(0)}
    arrays["geodesic"] = np.full((642, 642), 229.0)
    how = {"params": {}, "sources": {}, "attrs": {"mirror_axis": "x"}, "overwrite": True}
    write_arrays(small_template_file, "shic/template", arrays, **how)
    assert read_template(small_template_file).eigenvectors.shape == (642, 0)


def test_the_face_of_a_view_is_a_number_or_none(tmp_path: Path) -> None:
    sizes = {"N": 1, "H": 2, "W": 2, "K": 3}
    arrays = {
        name: np.zeros([axis if isinstance(axis, int) else sizes[axis] for axis in field.axes])
        for name, field in LAYOUTS["shic/views"].fields.items()
    }
    for face in (-1, 0, 7, -2):
        arrays["face"] = np.full((1, 2, 2), face)
        how = {"params": {}, "sources": {}, "attrs": {"template": ""}, "overwrite": True}
        write_arrays(tmp_path / "views.h5", "shic/views", arrays, **how)
        if face >= -1:
            assert (read_arrays(tmp_path / "views.h5", "shic/views")[0]["face"] == face).all()
    with pytest.raises(InputError, match="face holds numbers outside -1 and up"):
        read_arrays(tmp_path / "views.h5", "shic/views")


def test_pictures_that_are_packed_already_are_not_packed_again(tmp_path: Path) -> None:
    with h5py.File(write_items(tmp_path / "m.h5"), "r") as file:
        first = file["items/00000000"]
        assert (first["encoded"].compression, first["mask"].compression) == (None, "gzip")


def test_a_source_is_the_hash_of_its_file_and_no_folder(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert source(tmp_path / "a") == {"path": str(tmp_path / "a"), "sha256": digest}
    with pytest.raises(InputError, match="is a folder"):
        source(tmp_path)


def test_labels_are_one_of_four_and_attributes_are_all_given(tmp_path: Path) -> None:
    with h5py.File(write_items(tmp_path / "m.h5"), "a") as file:
        file.attrs["labels"] = "else"
    with pytest.raises(InputError, match="labels is 'else', expected one of pseudo, synthetic"):
        ItemReader(tmp_path / "m.h5", "shic/maps")
    with (
        pytest.raises(ValueError, match=r"shic/maps needs the attributes \['template'\]"),
        ItemWriter(tmp_path / "n.h5", "shic/maps", params={}, sources={}, attrs={"labels": "pseudo"}) as one,
    ):
        one.add("a", **item())


def drop(name: str) -> Callable[[h5py.File], None]:
    return lambda file: file.__delitem__(name)


def put(name: str, data: np.ndarray) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[name]
        file[name] = data

    return change


def attribute(name: str, value: object) -> Callable[[h5py.File], None]:
    return lambda file: file.attrs.__setitem__(name, value)


def link(file: h5py.File) -> None:
    del file["uv"]
    file["uv"] = h5py.ExternalLink("other.h5", "/uv")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (drop("verts"), "/verts is missing"),
        (link, "/uv is a link"),  # a file must not make us open another one
        (put("verts", np.zeros((642, 3))), "/verts is float64, expected float32"),
        (put("verts", np.zeros((642, 2), "f4")), "/verts has 2 on its axis 3, expected 3"),
        (put("verts", np.zeros(642, "f4")), "/verts has 1 axes, expected 2"),
        (put("geodesic", np.zeros((642, 600), "f4")), "/geodesic has 600 on its axis K, expected 642"),
        (put("mirror", np.full(642, 642, "i4")), "mirror holds numbers outside 0 to 641"),
        (put("faces", np.full((1280, 3), -1, "i4")), "faces holds numbers outside 0 to 641"),
        (put("mirror", np.full(642, -1, "i4")), "mirror holds numbers outside 0 to 641"),
        (put("face_uv", np.full((1280, 3), -1, "i4")), "face_uv holds numbers outside 0 to 641"),
        (put("face_uv", np.full((1280, 3), 642, "i4")), "face_uv holds numbers outside 0 to 641"),
        (put("source_to_vertex", np.full(5, -1, "i4")), "source_to_vertex holds numbers outside 0 to 641"),
        (put("source_to_vertex", np.full(5, 642, "i4")), "source_to_vertex holds numbers outside 0 to 641"),
        (put("uv", np.full((642, 2), -0.1, "f4")), "uv holds numbers outside 0 to 1"),
        (put("uv", np.full((642, 2), 1.1, "f4")), "uv holds numbers outside 0 to 1"),
        (put("verts", np.full((642, 3), 1.1, "f4")), "verts holds numbers outside -1 to 1"),
        (put("verts", np.full((642, 3), -1.1, "f4")), "verts holds numbers outside -1 to 1"),
        (put("geodesic", np.full((642, 642), -0.1, "f4")), "geodesic holds numbers outside 0 to 229"),
        (put("geodesic", np.full((642, 642), 229.5, "f4")), "geodesic holds numbers outside 0 to 229"),
        (attribute("format", "shic/views"), "expected shic/template, found shic/views"),
        (attribute("format", "else"), "is no file of shic's"),
        (attribute("format_version", 2), "format_version is 2, this shic reads 1"),
        (attribute("params", "{"), "params: is not JSON"),
        (lambda file: file.attrs.__delitem__("mirror_axis"), "a root attribute is damaged"),
    ],
)
def test_damage_is_named(small_template_file: Path, change: Callable[[h5py.File], None], said: str) -> None:
    with h5py.File(small_template_file, "a") as file:
        change(file)
    with pytest.raises(InputError) as caught:
        read_template(small_template_file)
    assert said in caught.value.message and caught.value.hint


@pytest.mark.parametrize("keep", [0, 100, 5000])
def test_cut_off_files(small_template_file: Path, keep: int) -> None:
    small_template_file.write_bytes(small_template_file.read_bytes()[:keep])
    with pytest.raises(InputError, match="can't be read as HDF5"):
        read_template(small_template_file)


def test_no_file_at_all(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file") as caught:
        read_template(tmp_path / "template.h5")
    assert "shic template prep" in caught.value.hint


def test_items_come_back_sorted_and_each_of_its_size(tmp_path: Path) -> None:
    reader = ItemReader(write_items(tmp_path / "m.h5", ("b/22.jpg", "a.jpg")), "shic/maps")
    assert reader.names == ["a.jpg", "b/22.jpg"] and len(reader) == 2
    assert reader.header.attrs == ATTRS and reader.header.params == {"pool": "max"}
    for found in reader:
        expected = item(len(found.name))
        assert np.array_equal(found.vertex, expected["vertex"]) and found.vertex.dtype == np.int32
        assert np.array_equal(found.mask, expected["mask"]) and np.array_equal(
            found.encoded, expected["encoded"]
        )
        assert found.score == pytest.approx(expected["score"], abs=1e-2)
    with pytest.raises(AttributeError):
        _ = found.nothing
    assert not (tmp_path / "m.h5.journal").exists()


def test_a_writer_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    with (
        pytest.raises(KeyboardInterrupt),
        ItemWriter(path, "shic/maps", params={}, sources={}, attrs=ATTRS) as writer,
    ):
        writer.add("a.jpg", **item())
        raise KeyboardInterrupt
    assert not path.exists()
    with pytest.raises(ShicError, match=r"params\.pool"):
        ItemWriter(path, "shic/maps", params={"pool": "mean"}, sources={}, attrs=ATTRS)
    with ItemWriter(path, "shic/maps", params={}, sources={}, attrs=ATTRS) as writer:
        assert "a.jpg" in writer and "b.jpg" not in writer and len(writer) == 1
        writer.add("b.jpg", **item())
    assert ItemReader(path, "shic/maps").names == ["a.jpg", "b.jpg"]


def test_a_target_is_kept_unless_overwrite(tmp_path: Path) -> None:
    path = write_items(tmp_path / "m.h5")
    before = path.read_bytes()
    with pytest.raises(ShicError, match="is there already"):
        write_items(path)
    with ItemWriter(path, "shic/maps", params={}, sources={}, attrs=ATTRS, overwrite=True) as writer:
        assert path.read_bytes() == before
        writer.add("c.jpg", **item())
    assert ItemReader(path, "shic/maps").names == ["c.jpg"]


def test_what_is_optional_may_be_missing(tmp_path: Path) -> None:
    """A features file without a basis or features, and maps with an uncertainty of 0 or of the largest."""
    attrs = {"extractor": "silhouette", "fingerprint": "f", "template": ""}
    with ItemWriter(tmp_path / "f.h5", "shic/features", params={}, sources={}, attrs=attrs) as writer:
        writer.add("a", mask=np.ones((3, 3)), crop=np.array([0, 0, 3]), encoded=np.ones(2), feature=None)
    assert read_arrays(tmp_path / "f.h5", "shic/features")[0] == {}
    (found,) = ItemReader(tmp_path / "f.h5", "shic/features")
    assert set(found.arrays) == {"mask", "crop", "encoded"}
    with ItemWriter(tmp_path / "m.h5", "shic/maps", params={}, sources={}, attrs=ATTRS) as writer:
        for name, value in {"high": 229, "low": 0}.items():
            writer.add(name, **item(), uncertainty=np.full((4, 3), value))
    assert [found.uncertainty.max() for found in ItemReader(tmp_path / "m.h5", "shic/maps")] == [229, 0]
    with h5py.File(tmp_path / "m.h5", "a") as file:
        put("items/00000000/uncertainty", np.full((4, 3), -0.5, "f2"))(file)
    with pytest.raises(InputError, match="uncertainty holds numbers outside 0 to 229"):
        list(ItemReader(tmp_path / "m.h5", "shic/maps"))


def test_nothing_to_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ShicError, match="nothing to write"):
        write_items(tmp_path / "m.h5", ())
    assert not (tmp_path / "m.h5").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            put("items/00000000/vertex", np.zeros((5, 2), "i4")),
            "/items/00000000/vertex has 2 on its axis W, expected 3",
        ),
        (
            put("items/00000000/score", np.zeros((5, 3), "f4")),
            "/items/00000000/score is float32, expected float16",
        ),
        (put("items/00000000/vertex", np.full((5, 3), -2, "i4")), "vertex holds numbers outside -1 and up"),
        (drop("items/00000000/mask"), "/items/00000000/mask is missing"),
        (drop("items"), "/items is missing"),
        (lambda file: file["items"].__setitem__("x", np.zeros(3)), "/items/x is not a group"),
    ],
)
def test_damaged_items_are_named(tmp_path: Path, change: Callable[[h5py.File], None], said: str) -> None:
    path = write_items(tmp_path / "m.h5")
    with h5py.File(path, "a") as file:
        change(file)
    with pytest.raises(InputError) as caught:
        list(ItemReader(path, "shic/maps"))
    assert said in caught.value.message


def test_damaged_chunks_are_an_input_error(small_template_file: Path) -> None:
    with h5py.File(small_template_file, "r") as file:
        chunk = file["verts"].id.get_chunk_info(0)
    data = bytearray(small_template_file.read_bytes())
    data[chunk.byte_offset : chunk.byte_offset + chunk.size] = b"\xff" * chunk.size
    small_template_file.write_bytes(data)
    with pytest.raises(InputError, match="verts can't be read"):
        read_template(small_template_file)


def test_describe_every_part(small_template_file: Path, tmp_path: Path) -> None:
    found = items.describe(small_template_file)
    assert found["kind"] == "shic/template" and found["fields"]["verts"]["shape"] == [642, 3]
    maps = items.describe(write_items(tmp_path / "m.h5"))
    assert (
        maps["fields"]["items"]["count"] == 2
        and maps["attributes"] == ATTRS
        and maps["params"] == {"pool": "max"}
    )


@pytest.mark.parametrize(
    "change",
    [drop("items"), drop("items/00000000/mask"), lambda file: file["items"].__setitem__("0", np.zeros(3))],
)
def test_describe_names_damage_too(tmp_path: Path, change: Callable[[h5py.File], None]) -> None:
    path = write_items(tmp_path / "m.h5")
    with h5py.File(path, "a") as file:
        change(file)
    with pytest.raises(InputError, match="/items"):
        items.describe(path)
