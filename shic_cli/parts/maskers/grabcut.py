"""GrabCut, OpenCV's graph cut with colour models: good where the object is in the middle; no weights."""

from __future__ import annotations

import cv2
import numpy as np

from shic_cli.parts.maskers.contract import Found, MaskerDefaults, pieces

LONGEST = 480  # pixels of the longer side at which the cut is made; a larger one only takes longer
BORDER = 0.04  # of each side: the rim that counts as background at the start
ROUNDS = 6  # of cutting and fitting the colour models


class GrabCut(MaskerDefaults):
    """Finds the pieces of a photo that differ from its border; no scores, as it can't tell what they are."""

    small = True

    def __init__(self, argument: str = "", *, device: str = "cpu") -> None:
        pass

    def __call__(self, rgb: np.ndarray) -> list[Found]:
        """The pieces of `rgb` `(H, W, 3)` uint8, the largest first."""
        height, width = rgb.shape[:2]
        scale = min(1.0, LONGEST / max(height, width))
        small = cv2.resize(
            rgb, (max(8, round(width * scale)), max(8, round(height * scale))), interpolation=cv2.INTER_AREA
        )
        inset = [max(1, round(side * BORDER)) for side in small.shape[:2]]
        box = (inset[1], inset[0], small.shape[1] - 2 * inset[1], small.shape[0] - 2 * inset[0])
        labels = np.zeros(small.shape[:2], np.uint8)
        cv2.setRNGSeed(0)  # the colour models start from k-means, which draws at random
        cv2.grabCut(
            np.ascontiguousarray(small[..., ::-1]),
            labels,
            box,
            np.zeros((1, 65)),
            np.zeros((1, 65)),
            ROUNDS,
            cv2.GC_INIT_WITH_RECT,
        )
        small_pieces = pieces((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD))
        return [
            Found(cv2.resize(piece.astype(np.uint8), (width, height), interpolation=cv2.INTER_LINEAR) > 0)
            for piece in small_pieces
        ]
