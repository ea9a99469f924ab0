"""Location instability: deviation over images of a filter's distance to a landmark (Sec. 5.2.2).

Shape legend: N images   F filters   K landmarks   C categories   R ranks, best score first.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

TOP_IMAGES = 100
"""Number of images per filter and landmark (Sec. 5.2.2)."""
FEWEST_IMAGES = 2
"""Minimum number of images for a deviation."""


class LocationInstability(NamedTuple):
    """Location instability of a layer: no unit, lower is more stable; NaN if there are too few usable images."""

    per_filter_F: Tensor
    """mean_k D_fk over the landmarks with a value: (F,)."""
    per_landmark_FK: Tensor
    """D_fk: (F, K)."""
    images_used_FK: Tensor
    """int64: number of images behind each D_fk, at most `top`: (F, K)."""
    never_fires_F: Tensor
    """bool: the filter's map is zero on every image, so it has no peak: (F,)."""

    @property
    def left_out_F(self) -> Tensor:
        """bool: filters without a value, which are excluded from the mean: (F,)."""
        return self.per_filter_F.isnan()

    @property
    def mean(self) -> float:
        """E_f[mean_k D_fk] over the filters with a value, as in Tables 3-5."""
        return self.per_filter_F.nanmean().item()


def location_instability(
    peak_NF2: Tensor,
    score_NF: Tensor,
    landmark_NK2: Tensor,
    diagonal_N: Tensor,
    top: int = TOP_IMAGES,
    fewest: int = FEWEST_IMAGES,
) -> LocationInstability:
    """Return the standard deviation, over images, of the normalised distance from filter peak to landmark.

        d_I(p_k, mu) = ||p_k - p(mu)|| / sqrt(w^2 + h^2)        D_fk = sqrt(var_I d_I),  var with N - 1

    For filter f and landmark k, the images are the `top` ones with the highest peak score among those that show k and
    on which f fires. The paper does not define the peak of an all-zero map, so such images are not used.

    Args:
        peak_NF2: (row, col) of the receptive field's centre at each filter's peak, image pixels.
        score_NF: the peak's activation before masking.
        landmark_NK2: (row, col), image pixels; NaN where a landmark is not visible.
        diagonal_N: diagonal of each image, pixels.
        top: maximum number of images per filter and landmark.
        fewest: minimum number of images per filter and landmark, at least 2.
    """
    fires_NF = score_NF > 0
    peak_NF2, diagonal_N = peak_NF2.double(), diagonal_N.double()
    columns = [
        _of_one_landmark(_distance(peak_NF2, landmark_N2.double(), diagonal_N), score_NF, fires_NF, top, fewest)
        for landmark_N2 in landmark_NK2.unbind(dim=1)
    ]
    per_landmark_FK = torch.stack([deviation_F for deviation_F, _ in columns], dim=1)
    images_used_FK = torch.stack([count_F for _, count_F in columns], dim=1)
    return LocationInstability(per_landmark_FK.nanmean(dim=1), per_landmark_FK, images_used_FK, ~fires_NF.any(dim=0))


def steadiest_category(per_filter_CF: Tensor) -> tuple[Tensor, Tensor]:
    """Return min_c mean_{k in Part_c} D_fk, for multi-category networks (Sec. 5.2.2, Table 6).

    Args:
        per_filter_CF: each filter's location instability, measured on the images of each category.

    Returns:
        (F,) the lowest value, NaN for a filter without any value; (F,) the category's index, int64.
    """
    lowest_F, category_F = per_filter_CF.nan_to_num(nan=torch.inf).min(dim=0)
    return torch.where(lowest_F.isinf(), torch.nan, lowest_F), category_F


def _distance(peak_NF2: Tensor, landmark_N2: Tensor, diagonal_N: Tensor) -> Tensor:
    """Return d_I of one landmark: (N, F), NaN where it is not visible."""
    return (peak_NF2 - landmark_N2[:, None]).square().sum(dim=2).sqrt() / diagonal_N[:, None]


def top_images(score_NF: Tensor, usable_NF: Tensor, top: int = TOP_IMAGES) -> Tensor:
    """Return which images are behind each filter's D_fk: the usable ones with the `top` highest peak scores.

    Args:
        score_NF: the peak's activation before masking.
        usable_NF: bool, whether the filter fires on the image and the image shows the landmark.
        top: maximum number of images per filter.

    Returns:
        (N, F), bool.
    """
    order_RF, used_RF = _ranked(score_NF, usable_NF, top)
    return torch.zeros_like(usable_NF).scatter_(0, order_RF, used_RF)


def _ranked(score_NF: Tensor, usable_NF: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """Return the images with the highest scores, and which of them are usable: two (R, F)."""
    # A stable sort, so that ties are broken in the same way on every machine.
    order_RF = score_NF.where(usable_NF, -torch.inf).argsort(dim=0, descending=True, stable=True)[:top]
    return order_RF, usable_NF.gather(0, order_RF)


def _of_one_landmark(
    distance_NF: Tensor, score_NF: Tensor, fires_NF: Tensor, top: int, fewest: int
) -> tuple[Tensor, Tensor]:
    """Return D_fk of one landmark and the number of images behind it: two (F,)."""
    order_RF, used_RF = _ranked(score_NF, fires_NF & ~distance_NF.isnan(), top)
    distance_RF = distance_NF.gather(0, order_RF).where(used_RF, 0)
    count_F = used_RF.sum(dim=0)
    mean_F = distance_RF.sum(dim=0) / count_F
    square_RF = (distance_RF - mean_F).square().where(used_RF, 0)
    deviation_F = (square_RF.sum(dim=0) / (count_F - 1)).sqrt()
    return deviation_F.where(count_F >= fewest, torch.nan), count_F
