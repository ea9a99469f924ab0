"""Location instability of peaks that look at nothing: at random places, or always at the same one.

Shape legend: N images   F filters   K landmarks   P places of the map.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from interp_model.metrics.scene import Scene


class Baselines(NamedTuple):
    """Location instability on each filter's own images, so that it can be compared with the filter's; NaN as there."""

    random_F: Tensor
    """Every peak at a place of the map drawn uniformly; the root of the expected variance, nothing is drawn."""
    centre_F: Tensor
    """Every peak at the centre of the image."""
    best_fixed_F: Tensor
    """Every peak at one and the same place of the map, the one with the lowest value; each filter has its own."""


def baselines(scene: Scene) -> Baselines:
    """Return the baselines of every filter, from the same images as its location instability."""
    count_KF, used_KNF = scene.count_KF, scene.used_KNF.double()
    mean_KN, spread_KN = scene.distance_KPN.mean(dim=1), scene.distance_KPN.var(dim=1, correction=0)
    # Independent draws: the mean variance of a draw, and the variance of the means.
    within_KF = (spread_KN[:, None] @ used_KNF)[:, 0] / count_KF
    random_KF = within_KF + _variance(mean_KN[:, None], used_KNF, count_KF)[:, 0]
    fixed_KPF = _variance(scene.distance_KPN, used_KNF, count_KF)
    fixed_PF = scene.mean_deviation(fixed_KPF)
    return Baselines(
        scene.mean_deviation(random_KF),
        scene.mean_deviation(_variance(scene.centre_KN[:, None], used_KNF, count_KF)[:, 0]),
        fixed_PF.amin(dim=0),
    )


def _variance(value_KPN: Tensor, used_KNF: Tensor, count_KF: Tensor) -> Tensor:
    """Return the variance, with N - 1, of values over each filter's images: (K, P, F)."""
    # A constant per row changes no variance, and small numbers cancel less.
    centred_KPN = value_KPN - value_KPN.mean(dim=2, keepdim=True)
    sum_KPF, squares_KPF = centred_KPN @ used_KNF, centred_KPN.square() @ used_KNF
    count_K1F = count_KF[:, None]
    return (squares_KPF - sum_KPF.square() / count_K1F) / (count_K1F - 1)
