"""Finds where the filters of the measured layer peak on every image.

Shape legend: N images   M some of them   B images of a batch   F filters   H = W = n map side   S input side
              X noise images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from interp_model.mask import peak_index
from interp_model.network import Network
from schemas.order import ReportPhase
from workers.training.inputs import Indices, Inputs

NOISE = 0.2
"""Standard deviation of the noise, in units of the network's input, which has about unit variance (Huang et al.)."""
NOISE_BOUND = 0.25
"""Largest noise of a pixel, in the same units (their code)."""
NOISE_IMAGES = 16
"""Number of noise images; image i gets number i modulo this, because drawing them costs as much as a forward pass."""


@dataclass(frozen=True)
class Peaks:
    """Place and strength of the peaks of the measured layer's filters, before masking."""

    unit_NF: Tensor
    """Row * n + column of the peak on the map."""
    pixel_NF2: Tensor
    """(row, column) of the receptive field's centre, in pixel indices of the network's input, as landmarks are."""
    score_NF: Tensor
    """Activation at the peak."""


@torch.no_grad()
def find_peaks(network: Network, inputs: Inputs, report: ReportPhase) -> Peaks:
    """Find the peaks of the measured layer's filters on every image, without flips."""
    network.eval()
    units: list[Tensor] = []
    scores: list[Tensor] = []
    for index_B in inputs.batches():
        report("measuring filters")
        _append_peaks(network, inputs.as_they_are(index_B), units, scores)
    return _peaks(network, units, scores)


@torch.no_grad()
def find_noisy_peaks(network: Network, inputs: Inputs, index_M: Indices, report: ReportPhase) -> Peaks:
    """Find the peaks on some images after adding noise, the same noise for every network.

    Args:
        network: the network.
        inputs: all images.
        index_M: which of them, in this order.
        report: called before each batch.
    """
    network.eval()
    units: list[Tensor] = []
    scores: list[Tensor] = []
    noise_X3SS = None
    for start in range(0, len(index_M), inputs.evaluation_batch):
        report("measuring stability")
        index_B = index_M[start : start + inputs.evaluation_batch]
        images_B3SS = inputs.images(index_B)
        if noise_X3SS is None:
            noise_X3SS = _noise(images_B3SS)
        noisy_B3SS = images_B3SS + noise_X3SS[torch.from_numpy(index_B % NOISE_IMAGES)]
        _append_peaks(network, network.forward_trunk(noisy_B3SS), units, scores)
    return _peaks(network, units, scores)


def peaks_of(x_NFHW: Tensor) -> tuple[Tensor, Tensor]:
    """Return the index of each map's peak, row by row, and its activation, on the CPU: both (N, F)."""
    return peak_index(x_NFHW).cpu(), x_NFHW.flatten(2).amax(dim=2).cpu()


def unit_to_pixel(network: Network, unit_NF: Tensor) -> Tensor:
    """Return (row, column) of the centre of each unit's receptive field, in pixel indices: (N, F, 2)."""
    n, field = network.map_side(network.top_layer), network.receptive_field(network.top_layer)
    # Receptive fields count from the image's edge, so the centre of pixel 0 is at 0.5; for landmarks it is at 0.
    centre_H = torch.tensor([field.centre_of(unit) - 0.5 for unit in range(n)], dtype=torch.float64)
    return torch.stack([centre_H[unit_NF // n], centre_H[unit_NF % n]], dim=2)


def places_of(network: Network) -> Tensor:
    """Return (row, column) of every place where a peak can lie, by unit, in pixel indices: (n * n, 2)."""
    units = torch.arange(network.map_side(network.top_layer) ** 2)
    return unit_to_pixel(network, units[:, None])[:, 0]


def evenly_spaced(total: int, count: int) -> Indices:
    """Return `count` evenly spaced indices below `total`, or all of them."""
    return np.linspace(0, total - 1, min(count, total)).round().astype(np.int64)


def _noise(images_B3SS: Tensor) -> Tensor:
    """Return the noise images, on the images' device: (NOISE_IMAGES, 3, S, S)."""
    noise_X3SS = torch.randn(NOISE_IMAGES, *images_B3SS.shape[1:], generator=torch.Generator().manual_seed(0))
    return (NOISE * noise_X3SS).clamp(-NOISE_BOUND, NOISE_BOUND).to(images_B3SS)


def _append_peaks(network: Network, head_input: Tensor, units: list[Tensor], scores: list[Tensor]) -> None:
    unit_BF, score_BF = peaks_of(network.forward_head(head_input).maps[network.top_layer])
    units.append(unit_BF)
    scores.append(score_BF)


def _peaks(network: Network, units: list[Tensor], scores: list[Tensor]) -> Peaks:
    unit_NF = torch.cat(units)
    return Peaks(unit_NF, unit_to_pixel(network, unit_NF), torch.cat(scores))
