"""Shuffled instability: what a filter's location instability would be if its peaks ignored the images they lie in.

Shape legend: N images   F filters   K landmarks   P places of the map   R images behind a D_fk.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from interp_model.metrics.scene import Scene


class Shuffled(NamedTuple):
    """Variance of the distances after dealing a filter's peaks out at random among its own images."""

    variance_KF: Tensor
    """Mean of the variance over all R! ways to deal: (K, F); NaN with fewer than two images."""
    influence_KNF: Tensor
    """How each image moves that mean, for the bootstrap: (R - 1) (V - V without the image), centred: (K, N, F). 0 for
    unused images, and with fewer than three."""


def shuffled(scene: Scene) -> Shuffled:
    """Return the expected variance of shuffled distances, exactly.

    With D_ij the distance from the peak of image i to the landmark of image j, row sums r_i, column sums c_j and total
    T, dealing the peaks out as a permutation gives for the variance with R - 1

        E[V] = S / R^2 - (T^2 - sum_i r_i^2 - sum_j c_j^2 + S) / (R^2 (R - 1)^2),   S = sum_ij D_ij^2

    because sum_{i != i', j != j'} D_ij D_i'j' is the bracket. Nothing is drawn, so the value has no sampling error.
    """
    found = [
        _of_one_landmark(scene.unit_NF, distance_PN, used_NF)
        for distance_PN, used_NF in zip(scene.distance_KPN, scene.used_KNF, strict=True)
    ]
    return Shuffled(*(torch.stack(parts) for parts in zip(*found, strict=True)))


def tracking_share(real: Tensor, shuffled_: Tensor) -> Tensor:
    """Return 1 - real / shuffled: 0 for peaks that ignore the image, 1 for peaks at a constant distance.

    Below 0, peaks avoid the landmark. NaN where there is nothing to track: the shuffled value is 0 up to rounding.

    Args:
        real: location instability, any shape.
        shuffled_: shuffled instability of the same images.
    """
    return torch.where(shuffled_ > 1e-9, 1 - real / shuffled_, torch.nan)


def real_variance(scene: Scene) -> Tensor:
    """Return the variance of the true distances, D_fk squared: (K, F); NaN with fewer than two images."""
    distance_KNF = peak_distances(scene)
    mean_K1F = (distance_KNF * scene.used_KNF).sum(dim=1, keepdim=True) / scene.count_KF[:, None]
    square_KNF = (distance_KNF - mean_K1F).square().where(scene.used_KNF, 0)
    return square_KNF.sum(dim=1) / (scene.count_KF - 1)


def peak_distances(scene: Scene) -> Tensor:
    """Return d_I from each peak to each landmark: (K, N, F); meaningless where `used_KNF` is false."""
    image_N1 = torch.arange(len(scene.unit_NF), device=scene.unit_NF.device)[:, None]
    return scene.distance_KPN[:, scene.unit_NF, image_N1]


def _of_one_landmark(unit_NF: Tensor, distance_PN: Tensor, used_bool_NF: Tensor) -> tuple[Tensor, Tensor]:
    used_NF = used_bool_NF.double()
    count_F = used_NF.sum(dim=0)
    e_PN = distance_PN - distance_PN.mean()  # a constant changes no variance, and small numbers cancel less
    e2_PN = e_PN.square()
    peaks_PF = e_PN.new_zeros(len(e_PN), unit_NF.shape[1]).scatter_add_(0, unit_NF, used_NF)
    r_PF, r2_PF = e_PN @ used_NF, e2_PN @ used_NF
    c_NF, c2_NF = e_PN.T @ peaks_PF, e2_PN.T @ peaks_PF
    total_F, squares_F = (peaks_PF * r_PF).sum(dim=0), (peaks_PF * r2_PF).sum(dim=0)
    rows_F, columns_F = (peaks_PF * r_PF.square()).sum(dim=0), (used_NF * c_NF.square()).sum(dim=0)
    variance_F = _expected(total_F, squares_F, rows_F, columns_F, count_F)
    # The same sums without image n.
    own_NF = e_PN.T.gather(1, unit_NF)
    r_NF, r2_NF = r_PF.gather(0, unit_NF), r2_PF.gather(0, unit_NF)
    weighted_r_NF = e_PN.T @ (peaks_PF * r_PF)
    weighted_c_NF = (e_PN @ (used_NF * c_NF)).gather(0, unit_NF)
    own2_NF = own_NF.square()
    without_NF = _expected(
        total_F - r_NF - c_NF + own_NF,
        squares_F - r2_NF - c2_NF + own2_NF,
        rows_F - r_NF.square() - 2 * (weighted_r_NF - r_NF * own_NF) + c2_NF - own2_NF,
        columns_F - c_NF.square() - 2 * (weighted_c_NF - c_NF * own_NF) + r2_NF - own2_NF,
        count_F - 1,
    )
    change_NF = ((count_F - 1) * (variance_F - without_NF)).where(used_bool_NF & (count_F >= 3), 0)
    return variance_F, (change_NF - change_NF.sum(dim=0) / count_F).where(used_bool_NF, 0)


def _expected(total: Tensor, squares: Tensor, rows: Tensor, columns: Tensor, count: Tensor) -> Tensor:
    cross = total.square() - rows - columns + squares
    return squares / count.square() - cross / (count * (count - 1)).square()
