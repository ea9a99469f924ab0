"""Receptive fields of a network's filters at image resolution, and the effort spent on them.

Shape legend: N images   B images of a filter   F filters   H = W map side   S input side   P = 2 S - 1 field side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from interp_model.explain.occlusion import aligned_field, image_field, occluder_for, occlusion_drop
from interp_model.network import Network
from schemas.order import ReportPhase
from workers.evaluation.peaks import Peaks
from workers.figures.canvas import Floats
from workers.training.inputs import Indices, Inputs


@dataclass(frozen=True)
class Care:
    """Effort of the occlusion: number of images and stride."""

    images: int = 10
    """Number of images per filter, highest peak first; ten in the released code."""
    stride: float = 9 / 224
    """Stride of the occluder as a fraction of the image's side; 9 pixels of 224 in the released code."""


def filter_fields(
    network: Network, measured: Inputs, peaks: Peaks, filters: Sequence[int], care: Care, report: ReportPhase
) -> dict[int, Tensor]:
    """Return the receptive field (P, P) of some filters of the measured layer, by filter number (Fig. 5).

    Args:
        network: the trained network.
        measured: inputs of the measured images.
        peaks: peaks of all filters on these images.
        filters: numbers of the filters.
        care: number of images and stride.
        report: receives the progress.
    """
    network.eval()
    field_images = {f: top_images(peaks, f, care.images) for f in filters}
    wanted = sorted({int(n) for index_B in field_images.values() for n in index_B})
    chosen = torch.tensor(list(filters), device=network.bank_PHW.device)

    def maps(images_B3SS: Tensor) -> Tensor:
        size = measured.evaluation_batch
        parts = (images_B3SS[start : start + size] for start in range(0, len(images_B3SS), size))
        return torch.cat([network.forward_measured(network.forward_trunk(part))[:, chosen] for part in parts])

    side = network.input_size
    occluder = occluder_for(side, stride_share=care.stride)
    drops: dict[int, Tensor] = {}
    for done, n in enumerate(wanted):
        report(f"computing receptive fields: image {done} of {len(wanted)}")
        drops[n] = occlusion_drop(maps, measured.images(np.array([n]))[0], occluder).cpu()
    return {
        f: aligned_field(
            [drops[int(n)][position] for n in field_images[f]],
            [(float(row) + 0.5, float(column) + 0.5) for row, column in peaks.pixel_NF2[field_images[f], f]],
            occluder,
            side,
        )
        for position, f in enumerate(filters)
    }


def top_images(peaks: Peaks, filter_: int, count: int) -> Indices:
    """Return the indices of the images with a filter's highest peaks, in descending order; it fires on all of them."""
    score_N = peaks.score_NF[:, filter_]
    found: Indices = score_N.topk(min(count, int((score_N > 0).sum()))).indices.numpy()
    return found


@torch.no_grad()
def image_fields(network: Network, measured: Inputs, index_B: Indices, filter_: int, field_PP: Tensor) -> list[Floats]:
    """Return the filter's receptive field on each image: (S, S), scaled to a maximum of 1."""
    centre_H = unit_centres(network)
    map_BHW = network.forward_measured(measured.as_they_are(index_B))[:, filter_].cpu()
    return [image_field(map_HW, field_PP, centre_H).numpy() for map_HW in map_BHW]


def unit_centres(network: Network) -> Tensor:
    """Return the centres of the measured layer's units along one axis, in pixels from the image's edge: (H,)."""
    look = network.receptive_field(network.top_layer)
    return torch.tensor([look.centre_of(unit) for unit in range(network.map_side(network.top_layer))])
