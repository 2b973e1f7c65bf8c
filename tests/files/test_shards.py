"""Shares, parts and their joining; two processes under torchrun give what one gives, and one that dies takes
nothing along.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from two_ranks import torchrun

from shic_cli.base.errors import InputError, SettingError, ShicError
from shic_cli.files.atomic import Journal
from shic_cli.files.items import ItemReader, ItemWriter
from shic_cli.files.join import join, read_header
from shic_cli.files.shards import WHOLE, Part, whole_path
from shic_cli.learning.model_file import read_meta
from shic_cli.stages import pseudo_gt

Shic = Callable[..., tuple[int, str, str]]
FEW = ("--azimuths", "4", "--elevations", "10")
PGT = ("pseudo-gt", "imgs", "--extractor", "silhouette", *FEW)
SYNTH = (
    "synth",
    "--number",
    "5",
    "--size",
    "64",
    "--generator",
    "plain",
    "--check",
    "0.97",
    "--masker",
    "grabcut",
)


def same(a: Path, b: Path) -> bool:
    return a.read_bytes() == b.read_bytes()


def test_shares_are_runs_that_cover_everything() -> None:
    for total in (0, 1, 7, 100):
        for count in (1, 3, 8):
            shares = [Part(number, count).of(range(total)) for number in range(1, count + 1)]
            assert [i for share in shares for i in share] == list(range(total))
            assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert [number for number in (1, 2, 3) if Part(number, 3).is_first] == [1]
    assert Part.parse("2/8") == Part(2, 8) and Part.parse("1/1") == WHOLE
    assert Part(2, 8).path(Path("a/b.maps.h5")) == Path("a/b.maps.part-2-of-8.h5")
    assert whole_path(Path("a/b.maps.part-2-of-8.h5")) == Path("a/b.maps.h5")


@pytest.mark.parametrize("text", ["0/8", "9/8", "1", "a/b", "1/0", "-1/3", "1/2/3"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(SettingError, match="is no share"):
        Part.parse(text)


def test_parts_are_joined_to_the_file_of_one_process(folder: Path, shic: Shic) -> None:
    assert shic(*PGT, "-o", "one.h5")[0] == 0
    for number in (3, 1, 2):
        assert shic(*PGT, "-o", "pgt.h5", "--shard", f"{number}/3")[0] == 0
    before = {path: path.stat().st_mtime_ns for path in folder.glob("pgt.part-*.h5")}
    assert (
        shic(*PGT, "-o", "pgt.h5", "--shard", "2/3")[0] == 0
    )  # given again, as a scheduler does: it is done
    assert {path: path.stat().st_mtime_ns for path in before} == before and len(before) == 3
    assert shic("join", *sorted(map(str, before), reverse=True))[0] == 0
    assert same(folder / "one.h5", folder / "pgt.h5")
    status, _, err = shic("join", *map(str, before))
    assert status == 1 and "is there already" in err
    with pytest.raises(ShicError, match="is there already"):
        join(list(before), folder / "pgt.h5")
    assert shic("join", *map(str, before), "--overwrite")[0] == 0
    one = folder / "pgt.part-1-of-3.h5"
    status, _, err = shic("join", *map(str, before), "-o", str(one), "--overwrite")
    assert status == 1 and "is a part, and would be replaced" in err and one.stat().st_mtime_ns == before[one]


def test_a_part_that_is_done_is_not_begun_again(
    folder: Path, shic: Shic, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = (*PGT, "-o", "pgt.h5", "--shard", "1/2")
    assert shic(*line)[0] == 0
    monkeypatch.setattr(pseudo_gt.Teacher, "make", lambda *_: pytest.fail("views of a part that is done"))
    assert shic(*line)[0] == 0


def test_a_part_whose_photos_failed_says_so_whenever_it_is_asked_for(folder: Path, shic: Shic) -> None:
    line, mask = (*PGT, "-o", "pgt.h5", "--shard", "1/2"), folder / "masks" / "photo0.png"
    right = mask.read_bytes()
    cv2.imwrite(str(mask), np.zeros_like(cv2.imread(str(mask))))
    assert [shic(*line)[0] for _ in range(2)] == [4, 4]
    mask.write_bytes(right)
    status, _, err = shic(*line)
    assert (
        status == 4
        and "pgt.part-1-of-2.h5: 1 of 3 inputs failed when it was made" in err
        and "--overwrite" in err
    )
    assert shic(*line, "--overwrite")[0] == 0
    assert shic(*line)[0] == 0


def test_training_on_a_part_is_told(folder: Path, shic: Shic) -> None:
    assert shic(*PGT, "-o", "pgt.h5", "--shard", "1/2")[0] == 0
    status, _, err = shic(
        "train", "pgt.part-1-of-2.h5", "--encoder", "silhouette", "--epochs", "1", "-o", "few.safetensors"
    )
    assert status == 0 and "pgt.part-1-of-2.h5: is a part" in err and "shic join" in err


def test_missing_weights_of_a_masker_are_told_before_the_views_are_made(
    folder: Path, shic: Shic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pseudo_gt.Teacher, "make", lambda *_: pytest.fail("views before the masker"))
    (folder / "bare").mkdir()
    cv2.imwrite(str(folder / "bare" / "a.png"), np.zeros((40, 40, 3), np.uint8))
    line = (
        "pseudo-gt",
        "bare",
        "--extractor",
        "silhouette",
        "--masker",
        "grounded-sam",
        "--class",
        "horse",
        "--weights",
        str(folder),
    )
    assert shic(*line, "-o", "bare.h5")[0] == 3


def test_a_part_that_is_missing_is_named_and_others_are_refused(folder: Path, shic: Shic) -> None:
    for number in (1, 2):
        assert shic(*PGT, "-o", "pgt.h5", "--shard", f"{number}/2")[0] == 0
    one, two = (str(folder / f"pgt.part-{number}-of-2.h5") for number in (1, 2))
    status, _, err = shic("join", one)
    assert status == 1 and "pgt.part-2-of-2.h5: is missing" in err and "--shard 2/2" in err
    status, _, err = shic("join", one, "pgt.part-9-of-9.h5")
    assert status == 1 and "pgt.part-9-of-9.h5: is missing" in err
    shutil.copy(one, folder / "again.h5")
    status, _, err = shic("join", one, "again.h5", two)
    assert status == 1 and "again.h5: is part 1 like" in err
    status, _, err = shic(*PGT, "-o", "pgt.h5", "--shard", "2/2", "--pool", "mean")
    assert status == 1 and "params.pool: 'max', now 'mean'" in err
    shutil.copytree(folder / "masks", folder / "others")
    status, _, err = shic(*PGT, "-o", "pgt.h5", "--shard", "2/2", "--masks", "others")
    assert status == 1 and "params.masks: None, now 'others'" in err
    assert shic(*PGT, "-o", "pgt.h5", "--shard", "2/2", "--pool", "mean", "--overwrite")[0] == 0
    status, _, err = shic("join", one, two)
    assert status == 1 and "params.pool: 'max', now 'mean'" in err
    (folder / "imgs" / "photo0.png").unlink()
    assert shic(*PGT, "-o", "pgt.h5", "--shard", "2/2", "--overwrite")[0] == 0
    status, _, err = shic("join", one, two)
    assert status == 1 and "sources.images.count: 6, now 5" in err
    shutil.copy(one, two)
    with h5py.File(two, "r+") as file:
        file.attrs["params"] = file.attrs["params"].replace('"shard": [1, 2]', '"shard": [2, 2]')
        file.attrs["template"] = "another"
    status, _, err = shic("join", one, two)
    assert status == 1 and "attrs.template" in err and "now 'another'" in err
    assert not (folder / "pgt.h5").exists()


def test_only_parts_are_joined_and_only_what_shic_wrote(folder: Path, album: Path, shic: Shic) -> None:
    shutil.copy(album / "truth.h5", folder / "truth.h5")
    status, _, err = shic("join", "truth.h5", "-o", "out.h5")
    assert status == 1 and "truth.h5: is no part of a file" in err
    status, _, err = shic("join", "template.h5", "-o", "out.h5")
    assert status == 1 and "template.h5: is no part of a file" in err
    assert (
        shic(*PGT, "-o", "pgt.h5", "--shard", "1/2")[0]
        == shic(*PGT, "-o", "pgt.h5", "--shard", "2/2")[0]
        == 0
    )
    two = folder / "pgt.part-2-of-2.h5"
    with h5py.File(two, "r+") as file:
        del file["items/00000001/mask"]
        file["items/00000001/mask"] = h5py.ExternalLink(str(folder / "truth.h5"), "/items/00000000/mask")
    with pytest.raises(InputError, match="link to elsewhere"):
        join([folder / "pgt.part-1-of-2.h5", two], folder / "pgt.h5")
    assert not (folder / "pgt.h5").exists()


def test_photos_that_fail_are_left_out_of_parts_too(folder: Path, shic: Shic) -> None:
    for name in ("photo0.png", "photo1.png"):
        (folder / "imgs" / name).write_bytes(b"no picture")
    status, _, err = shic(*PGT, "-o", "one.h5")
    assert status == 4
    status, _, err = shic(*PGT, "-o", "pgt.h5", "--shard", "1/3")
    assert (
        status == 4 and "2 of 2 inputs failed: photo0.png, photo1.png" in err
    )  # nothing is left, and it is a part all the same
    assert (
        shic(*PGT, "-o", "pgt.h5", "--shard", "2/3")[0]
        == shic(*PGT, "-o", "pgt.h5", "--shard", "3/3")[0]
        == 0
    )
    assert shic("join", *(f"pgt.part-{number}-of-3.h5" for number in (1, 2, 3)))[0] == 0
    assert same(folder / "one.h5", folder / "pgt.h5")
    (folder / "none").mkdir()
    status, _, err = shic("join", "pgt.part-1-of-3.h5", "-o", "none.h5")
    assert status == 1 and "pgt.part-2-of-3.h5: is missing" in err


def test_what_parts_dropped_is_added_up(folder: Path, shic: Shic) -> None:
    assert shic(*SYNTH, "-o", "one.h5")[0] == 0
    for number in (1, 2):
        assert shic(*SYNTH, "-o", "synth.h5", "--shard", f"{number}/2")[0] == 0
    assert shic("join", "synth.part-1-of-2.h5", "synth.part-2-of-2.h5")[0] == 0
    assert ItemReader(folder / "one.h5", "shic/maps").header.params["dropped"] > 0
    assert same(folder / "one.h5", folder / "synth.h5")


def test_what_a_killed_run_with_a_check_left_goes_with_the_next_one(folder: Path, shic: Shic) -> None:
    assert shic(*SYNTH[:-4], "-o", "one.h5")[0] == 0
    names = ItemReader(folder / "one.h5", "shic/maps").names
    killed = Journal(folder / "synth.h5", {"params": {"check": 0.5}})
    killed.append(b"dropped " + names[0].encode())
    killed.close()
    assert shic(*SYNTH[:-4], "-o", "synth.h5", "--overwrite")[0] == 0
    assert same(folder / "one.h5", folder / "synth.h5") and not list(folder.glob("synth.h5.*"))


def test_views_and_single_pictures_are_not_split(folder: Path, shic: Shic) -> None:
    for line in (
        ("features", "views.h5"),
        (*PGT, "--heatmap", "photo0.png:3,3"),
        ("synth", "--depth-only", "depth"),
        ("synth", "--contact-sheet", "a.png"),
    ):
        status, _, err = shic(*line, "--shard", "1/2")
        assert (status == 2 and "split" in err) or "one process" in err, line


def test_two_processes_give_the_files_of_one(folder: Path, small_model_file: Path, shic: Shic) -> None:
    """The four commands that split their images; then one process dies, and what the other had finished
    serves.
    """
    lines = {
        "pgt": PGT,
        "synth": SYNTH,
        "maps": ("predict", "imgs"),
        "features": ("features", "imgs", "--extractor", "silhouette"),
    }
    program = f"for name, line in {lines!r}.items():\n    shic(*line, '-o', f'{{name}}.two.h5')\n"
    program += """
import time
from shic_cli.stages import features
if rank == 1:
    def die(*rest):
        while not os.path.exists('late.part-1-of-2.h5'): time.sleep(0.05)
        os._exit(9)
    features._crops = die
shic('features', 'imgs', '--extractor', 'silhouette', '-o', 'late.h5')
"""
    done = torchrun(folder, program)
    assert done.returncode, done.stderr  # it died
    for name, line in lines.items():
        assert shic(*line, "-o", f"{name}.one.h5")[0] == 0
        assert same(folder / f"{name}.one.h5", folder / f"{name}.two.h5"), done.stderr
        assert not list(folder.glob(f"{name}.two.part-*"))
    assert (
        len(ItemReader(folder / "late.part-1-of-2.h5", "shic/features")) == 3
        and not (folder / "late.h5").exists()
    )
    assert shic(*lines["features"], "-o", "late.h5", "--shard", "2/2")[0] == 0
    assert shic("join", "late.part-1-of-2.h5", "late.part-2-of-2.h5")[0] == 0
    assert same(folder / "late.h5", folder / "features.one.h5")


def test_two_processes_train_like_one(folder: Path, album: Path, shic: Shic) -> None:
    """The losses and weights of the same batches to 1e-4; batch norm over both in double precision to 1e-9;
    commands that can't split.
    """
    shutil.copy(album / "truth.h5", folder / "synth.h5")
    assert shic(*PGT, "-o", "pgt.h5")[0] == 0
    line = (
        "train",
        "--encoder",
        "silhouette",
        "--epochs",
        "3",
        "--batch",
        "5",
        "--points",
        "30",
        "--seed",
        "3",
    )
    program = f"shic(*{line!r}, '-o', 'two.safetensors')\n"
    program += """
import torch
from torch import nn
from shic_cli.learning.team import SharedBatchNorm, _Sum
torch.manual_seed(0)
plain, data = nn.BatchNorm2d(3).double(), torch.randn(5, 3, 4, 4).double() * 3 + 1
way = torch.randn(5, 3, 4, 4).double()
nn.init.normal_(plain.weight)
shared = SharedBatchNorm(3).double()
shared.load_state_dict(plain.state_dict())
mine = slice(0, 4) if rank == 0 else slice(4, 5)
one, two = data.clone().requires_grad_(), data[mine].clone().requires_grad_()
(plain(one) * way).sum().backward()
(shared(two) * way[mine]).sum().backward()
torch.testing.assert_close(two.grad, one.grad[mine], atol=1e-9, rtol=0)
torch.testing.assert_close(_Sum.apply(shared.weight.grad), plain.weight.grad, atol=1e-9, rtol=0)
torch.testing.assert_close(shared.running_var, plain.running_var, atol=1e-9, rtol=0)
try: main(['render'])
except SystemExit as ended: assert ended.code == 1
"""
    done = torchrun(folder, program)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("shic: training on 12 pictures") == 1 and "render: can't be split" in done.stderr
    assert shic(*line, "-o", "one.safetensors")[0] == 0
    one, two = (load_file(folder / f"{name}.safetensors") for name in ("one", "two"))
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-5)
    losses = [read_meta(folder / f"{name}.safetensors")["losses"] for name in ("one", "two")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert not list(folder.glob("*.checkpoint")) and not list(folder.glob("*.journal"))


MAPS = {"labels": "pseudo", "template": "x"}


def write_part(path: Path, number: int, names: str, count: int = 2, **more: object) -> Path:
    """A part of a maps file, with an image for each letter of `names`."""
    part = Part(number, count)
    with ItemWriter(path, "shic/maps", params={}, sources={}, attrs=MAPS, part=part, **more) as writer:
        for name in names:
            ones = np.ones((9, 9))
            writer.add(name, encoded=np.ones(9), mask=ones, vertex=ones, score=ones)
    return part.path(path)


def test_parts_that_do_not_follow_one_another_or_hold_nothing(tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    for first, second, said in (
        ("ab", "bc", "part-2-of-2.h5: b is not in its share"),
        ("c", "ab", "part-2-of-2.h5: a is not in its share"),
        ("", "", "m.h5: its 2 parts hold nothing"),
    ):
        parts = [write_part(path, i, names, overwrite=True) for i, names in ((1, first), (2, second))]
        with pytest.raises(InputError, match=said):
            join(parts, path)
        assert not path.exists()
        for part in parts:
            part.unlink()


@pytest.mark.parametrize("shard", [[0, 2], [3, 2], [1.0, 2], [1], [1, 2, 3], "1/2", None])
def test_a_part_says_which_of_how_many_it_is(tmp_path: Path, shard: object) -> None:
    path = write_part(tmp_path / "m.h5", 1, "a")
    assert read_header(path).params["shard"] == [1, 2]
    with h5py.File(path, "r+") as file:
        file.attrs["params"] = json.dumps({"shard": shard})
    with pytest.raises(InputError, match="is no part of a file"):
        read_header(path)


@pytest.mark.parametrize("how", ["lacks one", "has one more", "has another attribute", "another name"])
def test_images_of_a_part_are_as_they_were_written(tmp_path: Path, how: str) -> None:
    parts = [write_part(tmp_path / "m.h5", number, name) for number, name in ((1, "a"), (2, "b"))]
    with h5py.File(parts[1], "r+") as file:
        group = file["items/00000000"]
        if how == "lacks one":
            del group["mask"]
        elif how == "has one more":
            group["more"] = 1
        elif how == "has another attribute":
            group.attrs["more"] = 1
        else:
            file["items"].move("00000000", "00000001")
    with pytest.raises(InputError, match=r"part-2-of-2\.h5: /items/00000000 is not as shic writes it"):
        join(parts, tmp_path / "m.h5")
    assert not (tmp_path / "m.h5").exists()


def test_parts_of_features_share_a_basis(tmp_path: Path) -> None:
    attrs, parts = {"extractor": "x", "fingerprint": "f", "template": ""}, []
    for number in (1, 2):
        part = Part(number, 2)
        root = {"pca_mean": np.zeros(3), "pca_basis": np.full((3, 2), float(number))}
        how = {"params": {}, "sources": {}, "attrs": attrs, "root": root, "part": part}
        with ItemWriter(tmp_path / "f.h5", "shic/features", **how) as writer:
            writer.add("ab"[number - 1], mask=np.ones((3, 3)), crop=np.array([0, 0, 3]), encoded=np.ones(2))
        parts.append(part.path(tmp_path / "f.h5"))
    with pytest.raises(InputError, match="its basis is not that of"):
        join(parts, tmp_path / "f.h5")
