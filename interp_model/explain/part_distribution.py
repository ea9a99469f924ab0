"""Where the peaks of all filters lie: over the image, and over the parts or landmarks of the animal (Fig. 6).

Shape legend: N images   F filters   K parts or landmarks   S image side.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Shares(NamedTuple):
    """Of the images on which a filter fires and that show any part or landmark, where its peak is."""

    share_FK: Tensor
    """NaN for a filter with no such image; rows sum to 1 for landmarks, and to 1 or more where parts overlap."""
    images_F: Tensor
    """int64: how many such images."""


def relative_scores(score_NF: Tensor) -> Tensor:
    """Each filter's peaks against its own highest one: (N, F), from 0 to 1, so that no filter outweighs another."""
    highest_F = score_NF.amax(dim=0)
    return torch.where(highest_F > 0, score_NF / highest_F, 0.0).clamp_min(0)


def peak_density(pixel_NF2: Tensor, weight_NF: Tensor, side: int, sigma: float) -> Tensor:
    """Heat maps of the peaks of all filters, each a gaussian of its weight.

    Args:
        pixel_NF2: (row, column), pixel indices; a peak past the border lies on it.
        sigma: of the gaussian, pixels. Half the stride of the units, so that the gaps between them do not show.

    Returns:
        (N, S, S), each summing to the image's total weight over the number of filters, the border's loss apart.
    """
    images, filters = weight_NF.shape
    at_NF2 = pixel_NF2.round().long().clamp(0, side - 1)
    place_NF = at_NF2[:, :, 0] * side + at_NF2[:, :, 1]
    heat_NX = torch.zeros(images, side * side).scatter_add_(1, place_NF, weight_NF.float() / filters)
    reach = max(1, round(3 * sigma))
    weight_X = torch.exp(-torch.arange(-reach, reach + 1).square() / (2 * sigma**2))
    weight_X /= weight_X.sum()
    heat_N1SS = functional.conv2d(heat_NX.view(-1, 1, side, side), weight_X[None, None, :, None], padding=(reach, 0))
    return functional.conv2d(heat_N1SS, weight_X[None, None, None, :], padding=(0, reach))[:, 0]


def nearest_landmarks(pixel_NF2: Tensor, fires_NF: Tensor, landmark_NK2: Tensor) -> Shares:
    """In what share of the images each landmark is the one nearest to the filter's peak.

    Args:
        landmark_NK2: NaN where it cannot be seen; an image that shows none does not count.
    """
    seen_NK = ~landmark_NK2.isnan().any(dim=2)
    apart_NFK = (pixel_NF2[:, :, None] - landmark_NK2[:, None]).norm(dim=3)
    nearest_NF = torch.where(seen_NK[:, None], apart_NFK, torch.inf).argmin(dim=2)
    hit_NFK = functional.one_hot(nearest_NF, landmark_NK2.shape[1]).bool()
    return _shares(hit_NFK, fires_NF & seen_NK.any(dim=1)[:, None])


def parts_at_peaks(part_NFK: Tensor, fires_NF: Tensor, shown_NK: Tensor) -> Shares:
    """In what share of the images the filter's peak lies on each part; the rest is beside the animal's parts.

    Args:
        part_NFK: bool, whether the peak of filter f on image n lies on part k.
        shown_NK: bool, whether image n shows part k; an image that shows none does not count.
    """
    return _shares(part_NFK, fires_NF & shown_NK.any(dim=1)[:, None])


def _shares(hit_NFK: Tensor, counts_NF: Tensor) -> Shares:
    images_F = counts_NF.sum(dim=0)
    hits_FK = (hit_NFK & counts_NF[:, :, None]).sum(dim=0)
    return Shares(torch.where(images_F[:, None] > 0, hits_FK / images_F[:, None], torch.nan), images_F)
