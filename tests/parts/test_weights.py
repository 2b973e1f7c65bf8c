"""Weights: found by name, loaded only when they are whole and of the right model, told apart by their
content.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import AutoModel, Dinov2Config, Dinov2Model, ViTConfig, ViTForImageClassification, ViTModel

from shic_cli.base.errors import InputError, MissingError, SettingError
from shic_cli.base.settings import FeatureConfig
from shic_cli.files.items import ItemWriter
from shic_cli.files.photos import encode
from shic_cli.parts import registry
from shic_cli.parts.checkpoints import Checkpoint, fingerprint_of, load
from shic_cli.parts.extractors.silhouette import Silhouette
from shic_cli.parts.pull import choose
from shic_cli.parts.weights import BUNDLES, MODELS, expand, full_name, locate
from shic_cli.stages.features import write_view_features

CPU = torch.device("cpu")
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}
DEIT = Path(__file__).parents[3] / "shared/weights/deit-tiny-patch16-224"


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny models with random weights: `vit` (a classifier), `dino`, and `unet` (fp16 only)."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    ViTForImageClassification(ViTConfig(**SMALL)).save_pretrained(folder / "vit")
    Dinov2Model(Dinov2Config(**SMALL)).save_pretrained(folder / "dino")
    blocks = {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }
    sizes = {
        "block_out_channels": (32, 32),
        "layers_per_block": 1,
        "cross_attention_dim": 16,
        "attention_head_dim": 8,
        "norm_num_groups": 8,
    }
    UNet2DConditionModel(**blocks, **sizes).half().save_pretrained(folder / "unet", variant="fp16")
    return folder


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    """A copy of `made` that a test may spoil."""
    return Path(shutil.copytree(made, tmp_path / "copy"))


def put_in_cache(cache: Path, repository: str, files: dict[str, bytes]) -> Path:
    """`files` as huggingface_hub keeps them; the folder that they are in."""
    home = cache / f"models--{repository.replace('/', '--')}"
    for name, content in {
        "refs/main": b"c0ffee",
        **{f"snapshots/c0ffee/{name}": content for name, content in files.items()},
    }.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(content)
    return home / "snapshots/c0ffee"


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_load_gives_a_frozen_module_in_float32(made, capfd):
    module = load(Dinov2Model, made / "dino", device="cpu")
    assert not module.training and not any(parameter.requires_grad for parameter in module.parameters())
    assert {parameter.dtype for parameter in load(UNet2DConditionModel, made / "unet").parameters()} == {
        torch.float32
    }
    half = load(UNet2DConditionModel, made / "unet", dtype=torch.float16)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.float16}
    assert torch.equal(half.conv_in.weight, load(UNet2DConditionModel, made / "unet").conv_in.weight.half())
    assert capfd.readouterr() == ("", "")


def test_load_gives_the_tensors_that_were_saved(tmp_path):
    saved = Dinov2Model(Dinov2Config(**SMALL))
    saved.save_pretrained(tmp_path)
    found = load(Dinov2Model, tmp_path).state_dict()
    assert len(found) > 20 and all(
        torch.equal(found[name], value) for name, value in saved.state_dict().items()
    )


def test_a_missing_tensor_is_named_unless_it_may_be_missing(made, capfd):
    with pytest.raises(
        InputError, match=r"vit: 2 tensors of ViTModel are not in it: pooler.dense.bias, pooler.dense.weight"
    ):
        load(ViTModel, made / "vit")
    assert load(ViTModel, made / "vit", ignore_missing=("pooler.",)).pooler is not None
    assert load(ViTModel, made / "vit", add_pooling_layer=False).pooler is None
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("model", "name", "changes", "words"),
    [
        (
            Dinov2Model,
            "dino",
            {"hidden_size": 48},
            "embeddings.cls_token is 1x1x32, but Dinov2Model with its config.json wants 1x1x48",
        ),
        (Dinov2Model, "dino", {"num_hidden_layers": 3}, "tensors of Dinov2Model are not in it"),
        (
            UNet2DConditionModel,
            "unet",
            {"cross_attention_dim": 24},
            "is 32x16, but UNet2DConditionModel with its config.json wants 32x24",
        ),
        (
            UNet2DConditionModel,
            "unet",
            {"layers_per_block": 2},
            "tensors of UNet2DConditionModel are not in it",
        ),
        (AutoencoderKL, "unet", {}, "can't be loaded as AutoencoderKL"),
        (
            AutoModel,
            "dino",
            {"model_type": "odd", "auto_map": {"AutoConfig": "x.C", "AutoModel": "x.M"}},
            "custom code",
        ),
    ],
)
def test_weights_of_another_model_are_refused(copy, capfd, model, name, changes, words):
    edit(copy / name / "config.json", **changes)
    with pytest.raises(InputError) as caught:
        load(model, copy / name)
    assert words in caught.value.message and "\n" not in caught.value.message and caught.value.hint
    assert capfd.readouterr() == ("", "")


def test_a_folder_that_is_no_checkpoint_is_named(copy, tmp_path):
    file = copy / "dino/model.safetensors"
    content = file.read_bytes()
    for broken, words in (
        (content[:-100], "is damaged"),
        (content[:20], "is damaged"),
        (b"", "is damaged"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
    ):
        file.write_bytes(broken)
        with pytest.raises(InputError, match=f"model.safetensors: {words}"):
            load(Dinov2Model, copy / "dino")
    file.rename(file.with_name("pytorch_model.bin"))
    with pytest.raises(InputError, match=r"pickled \(pytorch_model.bin\), which is never loaded"):
        load(Dinov2Model, copy / "dino")
    file.with_name("pytorch_model.bin").unlink()
    with pytest.raises(InputError, match=r"no weights in it"):
        load(Dinov2Model, copy / "dino")
    for text, words in (("{", "can't be read"), ("[]", "holds no settings")):
        (copy / "dino/config.json").write_text(text)
        with pytest.raises(InputError, match=f"config.json: {words}"):
            load(Dinov2Model, copy / "dino")
    for folder in (tmp_path, tmp_path / "none", file):
        with pytest.raises(InputError, match=r"is no checkpoint|can't be read"):
            load(Dinov2Model, folder)


def test_weights_in_several_files_must_all_be_there(made, tmp_path):
    Dinov2Model.from_pretrained(made / "dino").save_pretrained(tmp_path, max_shard_size="50KB")
    shards = Checkpoint.of(tmp_path).weights
    assert len(shards) > 2 and load(Dinov2Model, tmp_path)
    before = fingerprint_of(tmp_path)
    shards[1].unlink()
    with pytest.raises(
        InputError, match=rf"{shards[1].name}: is not there, though model.safetensors.index.json names it"
    ):
        load(Dinov2Model, tmp_path)
    assert len(before) == 16


def test_a_package_that_is_not_here_is_an_error_with_status_3(made):
    class Needs:
        @classmethod
        def from_pretrained(cls, *_: object, **__: object) -> None:
            raise ImportError("bitsandbytes is needed\nand more")

    Needs.__module__ = "transformers.somewhere"
    with pytest.raises(MissingError, match=r"bitsandbytes is needed"):
        load(Needs, made / "dino")


def test_the_fingerprint_is_that_of_the_content(made, copy):
    first = fingerprint_of(made / "dino")
    assert first == fingerprint_of(copy / "dino") and len(first) == 16 and int(first, 16) >= 0
    assert fingerprint_of(made, "dino", "unet") not in (first, fingerprint_of(made, "unet", "dino"))
    (copy / "dino/README.md").write_text("more")
    assert fingerprint_of(copy / "dino") == first
    content = bytearray((copy / "dino/model.safetensors").read_bytes())
    content[-1] ^= 1
    (copy / "dino/model.safetensors").write_bytes(content)
    assert fingerprint_of(copy / "dino") != first
    edit(copy / "vit/config.json", layer_norm_eps=1e-3)
    assert fingerprint_of(copy / "vit") != fingerprint_of(made / "vit")


@pytest.mark.skipif(not DEIT.exists(), reason="the weights are not on this machine")
def test_real_weights_are_loaded():
    module = load(ViTModel, DEIT, add_pooling_layer=False)
    assert module.config.hidden_size == 192 and module.embeddings.position_embeddings.abs().sum() > 0


def test_a_model_is_found_in_the_folder_or_in_the_cache(hub_cache, made, tmp_path):
    files = {name: (made / "dino" / name).read_bytes() for name in ("config.json", "model.safetensors")}
    with pytest.raises(MissingError) as caught:
        locate("dinov2-base")
    assert "`shic models pull dinov2-base`" in caught.value.hint and caught.value.exit_code == 3
    snapshot = put_in_cache(hub_cache, "facebook/dinov2-base", files)
    assert locate("dinov2-base") == locate("facebook/dinov2-base") == snapshot
    for i, name in enumerate(("dinov2-base", "facebook/dinov2-base")):
        weights = tmp_path / str(i)
        shutil.copytree(made / "dino", weights / name)
        assert locate("dinov2-base", weights) == weights / name
        assert locate("facebook/dinov2-base", weights) == weights / name
    assert locate("dinov2-base", tmp_path / "empty") == snapshot
    assert locate(str(made / "dino")) == made / "dino"
    for name, error in (
        (made / "none", MissingError),
        (made / "dino/config.json", InputError),
        ("dinov2-bse", SettingError),
    ):
        with pytest.raises(error):
            locate(str(name))
    for gone in ("/long/gone/dinov2-base", "./gone/dinov2-base", "gone/dinov2-base"):
        assert locate(gone, tmp_path / "0") == tmp_path / "0/dinov2-base"


@pytest.mark.parametrize("name", ["./x/y", "../x/y", "./x", "~/x", "~nobody/x", "a/b/c", "/x/y"])
def test_a_path_that_is_not_there_is_no_repository(name):
    with pytest.raises(MissingError, match=r"there is no such folder\n") as caught:
        locate(name)
    assert "pull" not in caught.value.hint


def test_what_may_be_a_folder_or_a_repository_is_said_to_be_neither():
    with pytest.raises(
        MissingError,
        match="a/b: there is no such folder, and the weights of that repository are not on this machine",
    ) as caught:
        locate("a/b")
    assert "`shic models pull a/b`" in caught.value.hint


def test_a_folder_below_the_users_own(made, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(made / "dino", tmp_path / "w/dino")
    assert locate("~/w/dino") == tmp_path / "w/dino"


def test_a_folder_is_named_so_that_it_can_be_found_from_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "here/w/tiny").mkdir(parents=True)
    (tmp_path / "a,b/tiny").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path / "here")
    whole = str(tmp_path / "here/w/tiny")
    assert (
        full_name("w/tiny")
        == full_name("./w/tiny")
        == full_name("~/here/w/tiny")
        == full_name(whole)
        == whole
    )
    (tmp_path / "here/dinov2-base").mkdir()
    for name in ("", "dinov2-base", "facebook/dinov2-base", "../a,b/tiny"):
        assert full_name(name) == name


def test_auto_warns_of_an_unfinished_download_only(hub_cache, made, caplog):
    with caplog.at_level("WARNING", "shic"):
        assert registry.resolve("extractors", "auto") == "silhouette" and not caplog.messages
        put_in_cache(
            hub_cache, "facebook/dinov2-base", {"config.json": (made / "dino/config.json").read_bytes()}
        )
        assert registry.resolve("extractors", "auto") == "silhouette"
    assert (
        len(caplog.messages) == 1
        and "passed dinov2 over" in caplog.text
        and "go on with `shic models pull dinov2-base`" in caplog.text
    )


def test_an_unfinished_download_is_not_taken(hub_cache, made, tmp_path):
    put_in_cache(hub_cache, "facebook/dinov2-base", {"config.json": (made / "dino/config.json").read_bytes()})
    with pytest.raises(MissingError, match=r"download is not finished \(.*no weights in it.*\)"):
        locate("dinov2-base")
    whole = shutil.copytree(made / "dino", tmp_path / "w/dinov2-base")
    assert locate("dinov2-base", tmp_path / "w") == whole
    parts = {"unet": "unet", "vae": "dino", "text_encoder": "dino"}
    for part, source in parts.items():
        shutil.copytree(made / source, tmp_path / "w/sd15" / part)
    for part, name in (("tokenizer", "tokenizer_config.json"), ("scheduler", "scheduler_config.json")):
        with pytest.raises(MissingError, match=part):
            locate("sd15", tmp_path / "w")
        (tmp_path / "w/sd15" / part).mkdir()
        (tmp_path / "w/sd15" / part / name).write_text("{}")
    assert locate("sd15", tmp_path / "w") == tmp_path / "w/sd15"


def test_a_pipeline_that_is_in_no_catalogue_is_whole_by_its_own_index(made, tmp_path):
    folder = tmp_path / "w/o/p"
    shutil.copytree(made / "unet", folder / "unet")
    (folder / "model_index.json").write_text(
        '{"unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"]}'
    )
    with pytest.raises(MissingError, match="vae"):
        locate("o/p", tmp_path / "w")
    shutil.copytree(made / "unet", folder / "vae")
    assert locate("o/p", tmp_path / "w") == folder
    (folder / "model_index.json").write_text("{")
    with pytest.raises(MissingError):
        locate("o/p", tmp_path / "w")


def test_the_catalogue_holds_together():
    assert all(model in MODELS for models in BUNDLES.values() for model in models)
    assert not set(MODELS) & set(BUNDLES)
    assert all(
        model.repository.count("/") == 1 and model.megabytes > 0 and model.licence
        for model in MODELS.values()
    )
    assert expand(["sd-dino", "dinov2", "a/b"]) == ["sd15", "dinov2-base", "dinov2-small", "a/b"]


def test_choose_takes_every_shard_of_one_variant():
    files = [
        "config.json",
        "model.safetensors.index.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "x/config.json",
    ]
    assert choose("a/b", files, ("",)) == files[:4]
    half = ["model.fp16-00001-of-00001.safetensors", "model.safetensors.index.fp16.json"]
    assert choose("a/b", files + half, ("",)) == ["config.json", *half]


class Needy(Silhouette):
    """An extractor that looks for weights and never finds them."""

    def __init__(self, argument: str = "", *, device: object, weights: Path | None = None) -> None:
        raise MissingError(f"looked in {weights}", "get them")


@pytest.fixture
def needy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.PARTS["extractors"], "silhouette", f"{__name__}:Needy")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """`a.png` with a mask in its alpha channel, and `truth.h5` with labels for it."""
    rgba = np.zeros((40, 40, 4), np.uint8)
    rgba[10:30, 10:30] = 255
    (tmp_path / "a.png").write_bytes(encode(rgba))
    mask = rgba[..., 3] > 0
    with ItemWriter(
        tmp_path / "truth.h5",
        "shic/maps",
        params={},
        sources={},
        attrs={"labels": "annotated", "template": ""},
    ) as writer:
        writer.add(
            "a.png",
            encoded=np.frombuffer(encode(rgba), np.uint8),
            mask=mask,
            vertex=np.where(mask, 3, -1),
            score=mask,
        )
    points = {name: {"points": {"eye": [15, 15]}} for name in ("a", "b")}
    (tmp_path / "pairs.json").write_text(json.dumps({"names": ["eye"], "images": points}))
    return tmp_path / "a.png"


@pytest.mark.parametrize(
    "line",
    [
        "features a.png --extractor silhouette",
        "pseudo-gt a.png --extractor silhouette",
        "pseudo-gt a.png --extractor silhouette --heatmap a.png:15,15",
        "train truth.h5 -o m.safetensors --encoder silhouette",
        "predict a.png",
        "match a.png a.png",
        "eval pck model.safetensors --keypoints pairs.json --images a.png",
    ],
)
def test_commands_that_load_a_model_look_in_the_folder(
    shic, photo, small_template_file, small_model_file, needy, monkeypatch, line
):
    status, _, err = shic(*line.split(), "--weights", "w")
    assert status == 3 and "looked in w\n" in err
    monkeypatch.setenv("SHIC_WEIGHTS", "v")
    assert "looked in v\n" in shic(*line.split())[2]


def test_features_of_views_look_in_the_folder(needy, tmp_path):
    with pytest.raises(MissingError, match="looked in w"):
        write_view_features(
            None, tmp_path / "f.h5", FeatureConfig(extractor="silhouette"), CPU, sources={}, weights=Path("w")
        )


class Weighted(Silhouette):
    """An extractor whose features depend on the folder of its weights."""

    def __init__(self, argument: str = "", *, device: object, weights: Path | None = None) -> None:
        super().__init__(argument, device=device)
        self.weights = weights

    @property
    def fingerprint(self) -> str:
        return f"{super().fingerprint}-{self.weights}"


@pytest.mark.parametrize(
    ("line", "stop"),
    [
        (
            "pseudo-gt a.png -o p.h5 --extractor silhouette --azimuths 2 --elevations 0",
            "shic_cli.stages.pseudo_gt.Failures.check",
        ),
        (
            "train truth.h5 -o m.safetensors --encoder silhouette --epochs 2 --variants 1",
            "shic_cli.learning.trainer.Trainer.save_checkpoint",
        ),
    ],
)
def test_an_unfinished_run_does_not_go_on_with_other_weights(
    shic, photo, small_template_file, monkeypatch, line, stop
):
    monkeypatch.setitem(registry.PARTS["extractors"], "silhouette", f"{__name__}:Weighted")

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stop, interrupted)
        assert shic(*line.split(), "--weights", "w")[0] == 130
    status, _, err = shic(*line.split(), "--weights", "v")
    assert status == 1 and "an unfinished run is there with other settings" in err
    assert shic(*line.split(), "--weights", "w")[0] == 0
