"""An extractor in another package: where in the object's box a pixel lies, in waves of several lengths, and
how deep inside it is.
"""

import math

import torch
from torch.nn import functional as F


class Box:
    name = "box"
    side = 128  # the pictures and masks that it gets are of this side, cropped around the object
    dim = 20  # D, the length of a feature
    needs_mask = True
    sees_whole_object = True  # a feature knows the whole object, so that a pointwise decoder is enough
    settings = {"name": name, "side": side}  # noqa: RUF012 - recorded in the files made with it
    fingerprint = "box-1"  # change it when the features change

    def __init__(self, argument: str = "", *, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)

    def __call__(self, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Features `(B, 20, h, w)` of `images` (B, 3, H, W) and `masks` (B, 1, H, W), both in 0..1; shic
        makes them unit vectors.
        """
        inside = F.avg_pool2d(masks.to(self.device), 2)
        batch, _, height, width = inside.shape
        y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
        phases = [math.pi * k * place for place in (y, x) for k in (1, 2, 3, 5)]
        waves = torch.stack([wave(phase) for phase in phases for wave in (torch.sin, torch.cos)]).to(
            self.device
        )
        depth = [F.avg_pool2d(inside, size, 1, size // 2) for size in (3, 7, 15, 31)]
        return torch.cat([waves.expand(batch, -1, -1, -1), *depth], 1)
