"""GrabCut: OpenCV's graph cut with colour models; no weights, and good where the object stands in the middle."""

from __future__ import annotations

import cv2
import numpy as np

from shic_cli.parts.maskers.contract import Found, pieces

LONGEST = 480  # pixels; the cut is made at this size, more only costs time
BORDER = 0.04  # share of each side that is taken for background to begin with
ROUNDS = 6


class GrabCut:
    """The pieces of a photo `(H, W, 3)` uint8 RGB that differ from its border, without scores: it can't tell
    what they are.
    """

    def __init__(self, argument: str = "", *, device: str = "cpu") -> None:
        pass

    def __call__(self, rgb: np.ndarray) -> list[Found]:
        height, width = rgb.shape[:2]
        scale = min(1.0, LONGEST / max(height, width))
        small = cv2.resize(
            rgb, (max(8, round(width * scale)), max(8, round(height * scale))), interpolation=cv2.INTER_AREA
        )
        inset = [max(1, round(side * BORDER)) for side in small.shape[:2]]
        box = (inset[1], inset[0], small.shape[1] - 2 * inset[1], small.shape[0] - 2 * inset[0])
        labels = np.zeros(small.shape[:2], np.uint8)
        cv2.setRNGSeed(0)  # its colour models start from k-means
        cv2.grabCut(
            np.ascontiguousarray(small[..., ::-1]),
            labels,
            box,
            np.zeros((1, 65)),
            np.zeros((1, 65)),
            ROUNDS,
            cv2.GC_INIT_WITH_RECT,
        )
        found = pieces((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD))
        return [
            Found(cv2.resize(piece.astype(np.uint8), (width, height), interpolation=cv2.INTER_LINEAR) > 0)
            for piece in found
        ]
