"""Finds where the filters of the measured layer peak on every image.

Shape legend: N images   M some of them   B images of a batch   F filters   H = W = n map side   S input side
              X noise images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from interp_model.mask import Peak, apply_mask, find_peak
from interp_model.network import Network
from schemas.order import ReportPhase
from workers.evaluation.kept_maps import KeptMaps
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

    def cpu(self) -> Peaks:
        """Return the peaks on the CPU."""
        return Peaks(self.unit_NF.cpu(), self.pixel_NF2.cpu(), self.score_NF.cpu())


@torch.no_grad()
def find_peaks(network: Network, inputs: Inputs, report: ReportPhase, kept: KeptMaps | None = None) -> Peaks:
    """Find the peaks of the measured layer's filters on every image, without flips; they stay on the network's device.

    Args:
        network: the network.
        inputs: the images.
        report: called before each batch.
        kept: keeps the maps of each batch that it wants, as `forward_measured` returns them.
    """
    network.eval()
    found = []
    for index_B in inputs.batches():
        report("measuring filters")
        x_BFHW = network.forward_unmasked(inputs.as_they_are(index_B))
        peak = find_peak(x_BFHW)
        if kept is not None and kept.wants(index_B, x_BFHW.nbytes):
            kept.keep(index_B, apply_mask(x_BFHW, network.bank_PHW, peak.index_NF) if network.masks else x_BFHW)
        found.append(peak)
    return _peaks(network, found)


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
    found = []
    noise_X3SS = _noise(network.input_size).to(network.bank_PHW)
    for start in range(0, len(index_M), inputs.evaluation_batch):
        report("measuring stability")
        index_B = index_M[start : start + inputs.evaluation_batch]
        noisy_B3SS = inputs.images(index_B).add_(noise_X3SS[torch.from_numpy(index_B % NOISE_IMAGES)])
        found.append(find_peak(network.forward_unmasked(network.forward_trunk(noisy_B3SS))))
    return _peaks(network, found)


def unit_to_pixel(network: Network, unit_NF: Tensor) -> Tensor:
    """Return (row, column) of the centre of each unit's receptive field, in pixel indices: (N, F, 2)."""
    n, field = network.map_side(network.top_layer), network.receptive_field(network.top_layer)
    # Receptive fields count from the image's edge, so the centre of pixel 0 is at 0.5; for landmarks it is at 0.
    centres = [field.centre_of(unit) - 0.5 for unit in range(n)]
    centre_H = torch.tensor(centres, dtype=torch.float64, device=unit_NF.device)
    return torch.stack([centre_H[unit_NF // n], centre_H[unit_NF % n]], dim=2)


def places_of(network: Network) -> Tensor:
    """Return (row, column) of every place where a peak can lie, by unit, in pixel indices: (n * n, 2)."""
    units = torch.arange(network.map_side(network.top_layer) ** 2, device=network.bank_PHW.device)
    return unit_to_pixel(network, units[:, None])[:, 0]


def evenly_spaced(total: int, count: int) -> Indices:
    """Return `count` evenly spaced indices below `total`, or all of them."""
    return np.linspace(0, total - 1, min(count, total)).round().astype(np.int64)


@lru_cache(maxsize=1)
def _noise(side: int) -> Tensor:
    """Return the noise images for inputs of a side, the same in every job: (NOISE_IMAGES, 3, S, S)."""
    noise_X3SS = torch.randn(NOISE_IMAGES, 3, side, side, generator=torch.Generator().manual_seed(0))
    return (NOISE * noise_X3SS).clamp(-NOISE_BOUND, NOISE_BOUND)


def _peaks(network: Network, found: Sequence[Peak]) -> Peaks:
    unit_NF = torch.cat([peak.index_NF for peak in found])
    return Peaks(unit_NF, unit_to_pixel(network, unit_NF), torch.cat([peak.height_NF for peak in found]))
