"""Distribution of the filters' peaks over the image and over the animal's parts or landmarks (Fig. 6).

Shape legend: N images   F filters   K parts or landmarks   S image side.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Shares(NamedTuple):
    """Fractions of the counted images in which a filter's peak lies at each part or landmark.

    An image counts for a filter if the filter fires on it and it shows at least one part or landmark.
    """

    share_FK: Tensor
    """Fractions; NaN for a filter without counted images. A row sums to 1 for landmarks. For parts the sum can be
    below 1 (background) or above 1 (overlapping parts)."""
    images_F: Tensor
    """int64: number of counted images."""


def relative_scores(score_NF: Tensor) -> Tensor:
    """Divide each filter's peak scores by its highest one, so that all filters have equal weight.

    Args:
        score_NF: peak activations.

    Returns:
        (N, F), from 0 to 1.
    """
    highest_F = score_NF.amax(dim=0)
    return torch.where(highest_F > 0, score_NF / highest_F, 0.0).clamp_min(0)


def peak_density(pixel_NF2: Tensor, weight_NF: Tensor, side: int, sigma: float) -> Tensor:
    """Return heat maps of the peaks of all filters: a sum of Gaussians, one per filter (Fig. 6).

    Args:
        pixel_NF2: (row, column) of the peaks, pixel indices; peaks outside the image are moved to its border.
        weight_NF: weight of each peak, see `relative_scores`.
        side: S, side of the image, pixels.
        sigma: standard deviation of the Gaussians, pixels. Half the stride of the units avoids gaps between them.

    Returns:
        (N, S, S). Each map sums to the image's mean weight over filters, minus what falls outside the image.
    """
    from scipy.ndimage import gaussian_filter  # a worker starts without it

    images, filters = weight_NF.shape
    index_NF2 = pixel_NF2.round().long().clamp(0, side - 1)
    flat_NF = index_NF2[:, :, 0] * side + index_NF2[:, :, 1]
    heat_NX = torch.zeros(images, side * side).scatter_add_(1, flat_NF, weight_NF.float() / filters)
    heat_NSS = heat_NX.view(-1, side, side).numpy()
    radius = max(1, round(3 * sigma))
    return torch.from_numpy(gaussian_filter(heat_NSS, sigma, mode="constant", radius=radius, axes=(1, 2)))


def nearest_landmarks(pixel_NF2: Tensor, fires_NF: Tensor, landmark_NK2: Tensor) -> Shares:
    """Return the fraction of images in which each landmark is the one nearest to the filter's peak.

    Args:
        pixel_NF2: (row, column) of the peaks, pixels.
        fires_NF: bool, whether the filter fires on the image.
        landmark_NK2: (row, column) of the landmarks, pixels; NaN where a landmark is not visible.
    """
    seen_NK = ~landmark_NK2.isnan().any(dim=2)
    distance_NFK = (pixel_NF2[:, :, None] - landmark_NK2[:, None]).norm(dim=3)
    nearest_NF = torch.where(seen_NK[:, None], distance_NFK, torch.inf).argmin(dim=2)
    hit_NFK = functional.one_hot(nearest_NF, landmark_NK2.shape[1]).bool()
    return _shares(hit_NFK, fires_NF & seen_NK.any(dim=1)[:, None])


def parts_at_peaks(part_NFK: Tensor, fires_NF: Tensor, shown_NK: Tensor) -> Shares:
    """Return the fraction of images in which the filter's peak lies on each part; the other peaks lie on no part.

    Args:
        part_NFK: bool, whether the peak of filter f on image n lies on part k.
        fires_NF: bool, whether the filter fires on the image.
        shown_NK: bool, whether image n shows part k.
    """
    return _shares(part_NFK, fires_NF & shown_NK.any(dim=1)[:, None])


def _shares(hit_NFK: Tensor, counts_NF: Tensor) -> Shares:
    images_F = counts_NF.sum(dim=0)
    hits_FK = (hit_NFK & counts_NF[:, :, None]).sum(dim=0)
    return Shares(torch.where(images_F[:, None] > 0, hits_FK / images_F[:, None], torch.nan), images_F)
