"""Finds where on the animal the peaks of every filter lie: on which annotated part, and near which landmark.

Shape legend: N images   B images of a batch   F filters   K parts   C categories   S input side.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from interp_model.explain.part_distribution import Shares, nearest_landmarks, parts_at_peaks
from workers.data.dataset import JobData
from workers.training.inputs import EVALUATION_BATCH

BACKGROUND = "background"
"""Name for peaks on no part of the category."""


class Places(NamedTuple):
    """Fractions of images in which the peaks lie at each place."""

    near: Shares
    """Nearest landmark, by landmark of the job."""
    on: Shares | None
    """Part under the peak, by part of `parts`; None without part masks."""
    parts: tuple[str, ...]
    """Names of the parts, with the background last; empty without part masks."""


def find_places(data: JobData, pixel_NF2: Tensor, score_NF: Tensor, category_F: Tensor) -> Places:
    """Find the places of every filter's peaks, on the images of its own category that make it fire.

    Args:
        data: the job's images, with landmarks and perhaps part masks.
        pixel_NF2: (row, column) of the peaks, in pixel indices.
        score_NF: activation at the peaks.
        category_F: index into `data.category_names`.
    """
    category_N = torch.from_numpy(np.asarray(data.measured.categories_N)).to(pixel_NF2.device)
    counts_NF = (score_NF > 0) & (category_N[:, None] == category_F)
    landmark_NK2 = torch.from_numpy(np.asarray(data.measured.landmarks_NK2)).to(pixel_NF2)
    near = nearest_landmarks(pixel_NF2, counts_NF, landmark_NK2)
    if data.measured.parts_NSS is None:
        return Places(near, None, ())
    own = [category.parts for category in data.categories]
    names = tuple(dict.fromkeys(name for parts in own for name in parts))
    bits = [[1 << parts.index(name) if name in parts else 0 for name in names] for parts in own]
    bit_CK = torch.tensor(bits, device=pixel_NF2.device)
    part_NFK, shown_NK = _parts_under(data, pixel_NF2, bit_CK[category_N])
    background_NF1 = ~part_NFK.any(dim=2, keepdim=True)
    on = parts_at_peaks(torch.cat([part_NFK, background_NF1], dim=2), counts_NF, shown_NK)
    return Places(near, on, (*names, BACKGROUND))


def _parts_under(data: JobData, pixel_NF2: Tensor, bit_NK: Tensor) -> tuple[Tensor, Tensor]:
    """Return whether each peak lies on each part (N, F, K), and whether each image shows it (N, K)."""
    assert data.measured.parts_NSS is not None
    device = pixel_NF2.device
    under, shown_N = [], np.zeros(len(pixel_NF2), dtype=np.uint8)
    for start in range(0, len(pixel_NF2), EVALUATION_BATCH):
        index_B = np.arange(start, min(start + EVALUATION_BATCH, len(pixel_NF2)))
        bits_BSS = data.measured.parts_NSS.take(index_B)
        shown_N[index_B] = np.bitwise_or.reduce(bits_BSS.reshape(len(index_B), -1), axis=1)
        at_BF2 = pixel_NF2[start : start + EVALUATION_BATCH].round().long().clamp(0, bits_BSS.shape[1] - 1)
        row_B1 = torch.arange(len(index_B), device=device)[:, None]
        under.append(torch.from_numpy(bits_BSS).to(device)[row_B1, at_BF2[:, :, 0], at_BF2[:, :, 1]])
    under_NF, bits_N = torch.cat(under).long(), torch.from_numpy(shown_N).to(device).long()
    return (under_NF[:, :, None] & bit_NK[:, None]) > 0, (bits_N[:, None] & bit_NK) > 0
