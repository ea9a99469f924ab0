"""Consistency and stability of what filters mark (Huang et al., ICCV 2023), without the paper's own measure.

Shape legend: N images   F filters   K landmarks   P places of the map.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

NEAR = 36 / 224
"""Half the side of the square around a peak in which a landmark is near, as a fraction of the image's side. The authors
use 36 pixels of 224; CaBRNet takes a fraction too."""

CONSISTENT = 0.8
"""Share of images from which a filter is consistent."""


class Consistency(NamedTuple):
    """How often a filter's peak is near one and the same landmark."""

    share_F: Tensor
    """Largest share of images, over landmarks, in which the landmark is near the peak; NaN if no image counts."""
    landmark_F: Tensor
    """int64: that landmark; undefined where the share is NaN."""
    fixed_F: Tensor
    """The largest share that one and the same place of the map reaches on the same images."""

    @property
    def score(self) -> float:
        """Share of the filters that are consistent, over those that have a value; NaN if none has."""
        return consistent(self.share_F).item()

    @property
    def fixed_score(self) -> float:
        """The same if every peak lay at its best fixed place."""
        return consistent(self.fixed_F).item()


def consistent(share_F: Tensor) -> Tensor:
    """Return the fraction of filters whose share is at least `CONSISTENT`; NaN shares are left out."""
    return (share_F >= CONSISTENT).double().where(~share_F.isnan(), torch.nan).nanmean(dim=-1)


def near_landmarks(at_NQ2: Tensor, landmark_NK2: Tensor, side: float) -> Tensor:
    """Return whether each landmark is near each of Q positions: (K, N, Q), bool; false where it is not visible.

    Args:
        at_NQ2: (row, column) of the positions, pixel indices; the first axis may be 1 for all images.
        landmark_NK2: (row, column) of the landmarks; NaN where one is not visible.
        side: side of the square images, pixels.
    """
    landmark_KN12 = landmark_NK2.to(at_NQ2).transpose(0, 1)[:, :, None]
    return (at_NQ2 - landmark_KN12).abs().amax(dim=3) <= NEAR * side


def counted(counts_NF: Tensor, landmark_NK2: Tensor) -> Tensor:
    """Return which images count for each filter and landmark: (K, N, F), bool.

    Args:
        counts_NF: bool, whether the filter fires on the image and the image is of its category.
        landmark_NK2: (row, column) of the landmarks; NaN where one is not visible.
    """
    return counts_NF & ~landmark_NK2.isnan().any(dim=2).T[:, :, None]


def consistency(
    near_KNF: Tensor, counted_KNF: Tensor, place_P2: Tensor, landmark_NK2: Tensor, side: float, fewest: int
) -> Consistency:
    """Return the consistency of every filter.

    Args:
        near_KNF: whether each landmark is near each peak, see `near_landmarks`.
        counted_KNF: which images count, see `counted`.
        place_P2: (row, column) of the places of the map, pixel indices.
        landmark_NK2: (row, column) of the landmarks; NaN where one is not visible.
        side: side of the square images, pixels.
        fewest: minimum number of images for a share.
    """
    counts_KNF = counted_KNF.double()
    images_KF = counts_KNF.sum(dim=1)
    share_KF = _share((near_KNF & counted_KNF).sum(dim=1), images_KF, fewest)
    near_KNP = near_landmarks(place_P2[None], landmark_NK2, side).double()
    fixed_KPF = _share(near_KNP.transpose(1, 2) @ counts_KNF, images_KF[:, None], fewest)
    highest_F, landmark_F = share_KF.nan_to_num(nan=-1.0).max(dim=0)
    fixed_F = fixed_KPF.nan_to_num(nan=-1.0).amax(dim=(0, 1))
    none_F = highest_F < 0
    return Consistency(highest_F.where(~none_F, torch.nan), landmark_F, fixed_F.where(~none_F, torch.nan))


def stability(near_KNF: Tensor, perturbed_KNF: Tensor, counted_KNF: Tensor, still_fires_NF: Tensor) -> Tensor:
    """Return the share of images in which a perturbation changes nothing: the same landmarks are near the peak.

    Args:
        near_KNF: whether each landmark is near each peak.
        perturbed_KNF: the same for the peaks in the perturbed images.
        counted_KNF: which images count, see `counted`.
        still_fires_NF: bool, whether the filter fires on the perturbed image; where it no longer does, its answer
            has changed.

    Returns:
        (F,); NaN for a filter without a counted image.
    """
    counts_NF = counted_KNF.any(dim=0)
    same_NF = ((near_KNF == perturbed_KNF) | ~counted_KNF).all(dim=0) & still_fires_NF
    return (same_NF & counts_NF).sum(dim=0) / counts_NF.sum(dim=0).double()


def _share(hits: Tensor, images: Tensor, fewest: int) -> Tensor:
    return (hits / images).where(images >= fewest, torch.nan)
