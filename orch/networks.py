"""The paper's measure of a job's network on any images.

Shape legend: N images   S input side   F filters   K landmarks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from interp_model.mask import find_peak
from interp_model.metrics.location_instability import FEWEST_IMAGES, TOP_IMAGES, location_instability
from interp_model.trained import TrainedNetwork
from schemas.errors import SpecError
from workers.evaluation.peaks import unit_to_pixel

BATCH = 32
"""Images per forward pass of `instability`."""


@torch.no_grad()
def instability(
    model: TrainedNetwork, image_N3SS: Tensor, landmark_NK2: Tensor, *, top: int = TOP_IMAGES,
    fewest: int = FEWEST_IMAGES,
) -> float:  # fmt: skip
    """Return the mean location instability of a network's filters on some images (Sec. 5.2.2); lower is steadier.

    Args:
        model: of `Job.network`.
        image_N3SS: RGB images, 0 to 1.
        landmark_NK2: (row, column) of each landmark in pixels of these images; NaN where it is not visible.
        top: most images per filter and landmark: those with the highest peaks.
        fewest: fewest images per filter and landmark.

    Returns:
        The mean over filters; NaN if no filter fires on enough images.

    Raises:
        SpecError: images and landmarks do not fit each other, or the network.
    """
    if landmark_NK2.ndim != 3 or landmark_NK2.shape[0] != image_N3SS.shape[0] or landmark_NK2.shape[2] != 2:
        raise SpecError(
            f"{image_N3SS.shape[0]} images need landmarks of shape ({image_N3SS.shape[0]}, K, 2), as row and column, "
            f"not {tuple(landmark_NK2.shape)}."
        )
    starts = range(0, len(image_N3SS), BATCH)
    peaks = [find_peak(model.maps(image_N3SS[start : start + BATCH])) for start in starts]
    unit_NF, score_NF = torch.cat([peak.index_NF for peak in peaks]), torch.cat([peak.height_NF for peak in peaks])
    diagonal_N = torch.full((len(image_N3SS),), model.input_size * 2**0.5, device=unit_NF.device)
    peak_NF2 = unit_to_pixel(model.network, unit_NF)
    return location_instability(peak_NF2, score_NF, landmark_NK2.to(unit_NF.device), diagonal_N, top, fewest).mean
