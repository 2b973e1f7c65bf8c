"""The paper's generator (sec. 3.5): Stable Diffusion 1.5, bound by a ControlNet to a picture of depth."""

# pyright: reportPrivateImportUsage=false
# diffusers imports its names when they are asked for, which pyright takes for private ones.

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch

from shic_cli.base.errors import InputError, MissingError, PictureError, SettingError
from shic_cli.base.packages import require
from shic_cli.base.settings import CONTROLNET_ERODE, CONTROLNET_VIEWS, SynthConfig
from shic_cli.parts.checkpoints import load, silenced
from shic_cli.parts.extractors.diffusion import check_kind, read_scheduler, read_tokenizer
from shic_cli.parts.extractors.pretrained import number_format
from shic_cli.parts.generators.conditions import Conditioner
from shic_cli.parts.generators.contract import GeneratorDefaults, Scene
from shic_cli.parts.weights import locate

log = logging.getLogger("shic")

SCHEDULERS = {
    "unipc": "UniPCMultistepScheduler",
    "dpm": "DPMSolverMultistepScheduler",
    "ddim": "DDIMScheduler",
    "euler": "EulerDiscreteScheduler",
}


class ControlnetDepth(GeneratorDefaults):
    """Paints a scene by its inverse depth.

    The argument is another Stable Diffusion 1.5, `control` another ControlNet for depth where white is near,
    `depth` another Depth Anything; each is a model's name or its folder. No safety checker is loaded. The
    noise of a picture is drawn on the CPU from the picture's own seed: it is the same on every device.
    """

    name = "controlnet-depth"
    packages: tuple[str, ...] = ("diffusers", "transformers")
    model = "sd15"
    slow_on = ("cpu",)
    folders = ("control", "depth")
    views, erode = CONTROLNET_VIEWS, CONTROLNET_ERODE
    saves_memory = "give --offload model or sequential, --slicing, --precision float16, or --device cpu"

    def __init__(
        self,
        argument: str = "",
        *,
        device: torch.device | str = "cpu",
        weights: Path | None = None,
        config: SynthConfig | None = None,
        control: str = "control-depth",
        depth: str = "depth-anything",
    ) -> None:
        self.config, self.device = config or SynthConfig(), torch.device(device)
        self.conditioner = Conditioner(self.config, device, weights, depth)
        self.dtype = number_format(self.name, self.config.precision, self.device, torch.float16)
        if self.config.offload != "none":
            check_offload(self.config.offload, self.device)
        self.pipe = self._pipeline(locate(argument or self.model, weights), locate(control, weights))

    @classmethod
    def check(cls, weights: Path | None = None) -> None:
        """MissingError when the weights of Stable Diffusion or of the ControlNet are not on this machine."""
        for name in (cls.model, "control-depth"):
            try:
                locate(name, weights)
            except MissingError as error:
                command = f"shic models pull {cls.name}" + (f" --weights {weights}" if weights else "")
                raise type(error)(
                    f"{cls.name}: {error.message}", f"get all that it needs with `{command}`"
                ) from error

    def _pipeline(self, folder: Path, control: Path) -> Any:
        import diffusers
        from transformers import CLIPTextModel

        if not (folder / "unet").is_dir():
            raise InputError(
                f"{folder}: holds no Stable Diffusion, there is no folder unet in it",
                "name the folder above unet and vae",
            )
        parts = {
            "unet": load(diffusers.UNet2DConditionModel, folder / "unet", dtype=self.dtype),
            "controlnet": load(diffusers.ControlNetModel, control, dtype=self.dtype),
            "vae": load(diffusers.AutoencoderKL, folder / "vae", dtype=self.dtype),
            "text_encoder": load(CLIPTextModel, folder / "text_encoder", dtype=self.dtype),
        }
        check_kind(
            folder, parts["unet"].config, parts["vae"].config, parts["text_encoder"].config.hidden_size
        )
        if parts["controlnet"].config.cross_attention_dim != parts["unet"].config.cross_attention_dim:
            raise InputError(
                f"{control}: is a ControlNet of another Stable Diffusion than {folder}",
                "take one for Stable Diffusion 1.5",
            )
        scheduler = read_scheduler(getattr(diffusers, SCHEDULERS[self.config.scheduler]), folder)
        tokenizer = read_tokenizer(folder)
        self._check_prompts(tokenizer, parts["text_encoder"].config.max_position_embeddings)
        with silenced(CLIPTextModel):  # this import warns of packages that only other pipelines need
            pipe = diffusers.StableDiffusionControlNetPipeline(
                **parts,
                tokenizer=tokenizer,
                scheduler=scheduler,
                safety_checker=None,  # pyright: ignore[reportArgumentType]
                feature_extractor=None,  # pyright: ignore[reportArgumentType]
                requires_safety_checker=False,
            )
        pipe.set_progress_bar_config(disable=True)
        if self.config.slicing:
            pipe.enable_attention_slicing()
        if self.config.offload == "model":
            pipe.enable_model_cpu_offload(device=self.device)
        elif self.config.offload == "sequential":
            pipe.enable_sequential_cpu_offload(device=self.device)
        return pipe.to(self.device) if self.config.offload == "none" else pipe

    def _check_prompts(self, tokenizer: Any, limit: int) -> None:
        """Warn once where a prompt is longer than the text encoder reads, not at each picture."""
        for option, text in (
            ("--prompt", self.conditioner.prompt("front")),
            ("--negative", self.config.negative),
        ):
            if len(tokenizer(text, verbose=False).input_ids) > limit:
                log.warning(
                    "%s is longer than the %d tokens that the text encoder reads: its end is not used",
                    option,
                    limit,
                )

    def side(self, size: int) -> int:
        """The side that Stable Diffusion paints at, in pixels, for a picture of `size` pixels."""
        return self.conditioner.side(size)

    def __call__(self, scene: Scene, rng: np.random.Generator) -> np.ndarray:
        """The picture `(S, S, 3)` uint8 of `scene`; PictureError when it has NaNs."""
        from PIL import Image

        condition = self.conditioner(scene, rng)
        log.debug("seed %d: %s", condition.seed, condition.prompt)
        with silenced(type(self.pipe)), silenced(type(self.pipe.text_encoder)):
            rgb = self.pipe(
                condition.prompt,
                Image.fromarray(condition.picture),
                negative_prompt=condition.negative,
                num_inference_steps=self.config.steps,
                guidance_scale=self.config.guidance,
                controlnet_conditioning_scale=self.config.strength,
                generator=torch.Generator().manual_seed(condition.seed),
                output_type="np",
            ).images[0]
        if not np.isfinite(rgb).all():
            number = str(self.dtype).removeprefix("torch.")
            raise PictureError(
                f"{self.name} gave NaNs in {number}",
                "give --precision float32, or bfloat16 where the GPU has it",
            )
        return (rgb.clip(0, 1) * 255).round().astype(np.uint8)


def check_offload(offload: str, device: torch.device) -> None:
    """SettingError when `device` is no GPU, MissingError when the package accelerate is missing."""
    if device.type != "cuda":
        raise SettingError(
            f"--offload {offload}: saves a GPU's memory, and the device is {device}",
            "leave it out, or give --device cuda",
        )
    require("accelerate", f"--offload {offload}")
