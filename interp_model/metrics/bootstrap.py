"""Bootstrap intervals over images for the means of a layer.

Shape legend: N images   F filters   K landmarks   B resamples   M measures.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from interp_model.metrics.consistency import consistent
from interp_model.metrics.scene import Scene
from interp_model.metrics.tracking import Shuffled, peak_distances

RESAMPLES = 1000
CONFIDENCE = 0.95
SEED = 0


class Intervals(NamedTuple):
    """95 % percentile intervals; NaN where the mean is undefined."""

    instability: tuple[float, float]
    tracking: tuple[float, float]
    consistency: tuple[float, float]


def resamples(images: int, count: int = RESAMPLES, seed: int = SEED) -> Tensor:
    """Return how often each image is drawn in each resample of as many images, with replacement: (B, N), float."""
    drawn_BN = torch.randint(images, (count, images), generator=torch.Generator().manual_seed(seed))
    ones_BN = torch.ones_like(drawn_BN, dtype=torch.float64)
    return torch.zeros(count, images, dtype=torch.float64).scatter_add_(1, drawn_BN, ones_BN)


def intervals(scene: Scene, found: Shuffled, near_KNF: Tensor, counted_KNF: Tensor, weight_BN: Tensor) -> Intervals:
    """Return intervals of a layer's mean instability, tracking share and consistency. Arguments: see `resampled`."""
    ends = percentiles(resampled(scene, found, near_KNF, counted_KNF, weight_BN)).tolist()
    return Intervals(*((low, high) for low, high in ends))


def resampled(scene: Scene, found: Shuffled, near_KNF: Tensor, counted_KNF: Tensor, weight_BN: Tensor) -> Tensor:
    """Return mean instability, tracking share and consistency of a layer in each resample: (3, B).

    All filters see the same resampled images, so what they have in common is kept. A filter's top images are those of
    the original images. The variance of a resample is on average (R - 1) / R of that of its R images, which is undone.
    The shuffled variance is followed to first order in the images' weights.

    Args:
        scene: peaks and landmarks.
        found: the shuffled variance.
        near_KNF: whether each landmark is near each peak.
        counted_KNF: which images count for consistency.
        weight_BN: see `resamples`.
    """
    distance_KNF, counts_BN = peak_distances(scene), weight_BN.float()
    centred_KNF = (distance_KNF - distance_KNF.mean()) * scene.used_KNF
    real, dealt = [], []
    for used_NF, value_NF, influence_NF, shuffled_F, count_F in zip(
        scene.used_KNF, centred_KNF, found.influence_KNF, found.variance_KF, scene.count_KF, strict=True
    ):
        drawn_BF = _counted(counts_BN, used_NF)
        sum_BF, square_BF, moved_BF = (weight_BN @ torch.cat([value_NF, value_NF.square(), influence_NF], dim=1)).chunk(
            3, dim=1
        )
        variance_BF = (square_BF - sum_BF.square() / drawn_BF) / (drawn_BF - 1)
        real.append((variance_BF * count_F / (count_F - 1)).where(drawn_BF > 1, torch.nan))
        dealt.append(shuffled_F + moved_BF / drawn_BF)
    real_B = scene.mean_deviation(torch.stack(real)).nanmean(dim=1)
    dealt_B = scene.mean_deviation(torch.stack(dealt)).nanmean(dim=1)
    counts = [
        (_counted(counts_BN, near_NF & counted_NF), _counted(counts_BN, counted_NF))
        for near_NF, counted_NF in zip(near_KNF, counted_KNF, strict=True)
    ]
    enough_K1F = counted_KNF.sum(dim=1)[:, None] >= scene.fewest
    hits_KBF, images_KBF = (torch.stack(column) for column in zip(*counts, strict=True))
    share_BF = (hits_KBF / images_KBF).where(enough_K1F & (images_KBF > 0), -1.0).amax(dim=0)
    consistency_B = consistent(share_BF.where(share_BF >= 0, torch.nan))
    return torch.stack([real_B, 1 - real_B / dealt_B, consistency_B])


def _counted(counts_BN: Tensor, is_NF: Tensor) -> Tensor:
    """Return how many of the drawn images are such: (B, F), float64. Sums of whole numbers are exact in float32."""
    return (counts_BN @ is_NF.float()).double()


def percentiles(value_MB: Tensor) -> Tensor:
    """Return the percentile intervals of resampled values, (M, B) or (B,): (M, 2) or (2,); NaN where none is finite."""
    tail = (1 - CONFIDENCE) / 2
    finite_MB = value_MB.where(value_MB.isfinite(), torch.nan)
    return finite_MB.nanquantile(value_MB.new_tensor([tail, 1 - tail]), dim=-1).movedim(0, -1)
