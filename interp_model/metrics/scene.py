"""What every measure of where peaks lie needs: distances from a map's places to the landmarks, and the images used.

A peak can lie only at the centres of the map's units, so a table from places to landmarks replaces one from images to
images: sums over pairs of images become small matrix products.

Shape legend: N images   F filters   K landmarks   P places: centres of the receptive fields of the map's units.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from interp_model.metrics.location_instability import FEWEST_IMAGES, TOP_IMAGES, top_images


class Scene(NamedTuple):
    """Peaks and landmarks of a set of images."""

    unit_NF: Tensor
    """int64: index of the place of each peak."""
    distance_KPN: Tensor
    """d_I from each place to each landmark, over the image's diagonal; 0 where the landmark is not visible."""
    centre_KN: Tensor
    """The same from the centre of the image."""
    used_KNF: Tensor
    """bool: the images behind each D_fk, see `top_images`."""
    fewest: int
    """Minimum number of images for a deviation."""

    @property
    def count_KF(self) -> Tensor:
        """Number of images behind each D_fk, float."""
        return self.used_KNF.sum(dim=1).double()

    def mean_deviation(self, variance_KF: Tensor) -> Tensor:
        """Return the mean over landmarks of the root of a variance: (F,).

        Landmarks with fewer than `fewest` images are left out, as in location instability; NaN if none is left.

        Args:
            variance_KF: a variance of distances per landmark and filter, or (K, ..., F).
        """
        enough_KF = self.count_KF >= self.fewest
        enough = enough_KF.view(len(enough_KF), *[1] * (variance_KF.ndim - 2), -1)
        return variance_KF.clamp_min(0).sqrt().where(enough, torch.nan).nanmean(dim=0)


def make_scene(
    unit_NF: Tensor,
    score_NF: Tensor,
    counts_NF: Tensor,
    place_P2: Tensor,
    landmark_NK2: Tensor,
    side: float,
    top: int = TOP_IMAGES,
    fewest: int = FEWEST_IMAGES,
) -> Scene:
    """Prepare the measures of one layer.

    Args:
        unit_NF: index of the place of each peak.
        score_NF: the peak's activation before masking.
        counts_NF: bool, whether an image counts for a filter; those on which it does not fire never do.
        place_P2: (row, column) of the places, pixel indices.
        landmark_NK2: (row, column) of the landmarks, pixel indices; NaN where one is not visible.
        side: side of the square images, pixels.
        top: maximum number of images per filter and landmark.
        fewest: minimum number of images per filter and landmark.
    """
    landmark_KN2 = landmark_NK2.double().transpose(0, 1)
    seen_KN = ~landmark_KN2.isnan().any(dim=2)
    usable_NF = counts_NF & (score_NF > 0)
    used = [top_images(score_NF, usable_NF & seen_N[:, None], top) for seen_N in seen_KN]
    centre_2 = landmark_KN2.new_full((2,), (side - 1) / 2)
    diagonal = side * 2**0.5
    return Scene(
        unit_NF,
        (place_P2.double()[:, None] - landmark_KN2[:, None]).norm(dim=3).nan_to_num_(nan=0.0) / diagonal,
        (centre_2 - landmark_KN2).norm(dim=2).nan_to_num_(nan=0.0) / diagonal,
        torch.stack(used),
        fewest,
    )
