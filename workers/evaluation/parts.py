"""Measures part interpretability: decides which maps, images and parts each filter is measured on.

Shape legend: B images of a batch   F filters   H = W map side   K parts   C categories   R ranks   S input side.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from interp_model.metrics.part_interpretability import (
    BilinearRegions,
    PartInterpretability,
    Regions,
    RoundRegions,
    activation_thresholds,
    merge_top,
    part_interpretability,
    valid_units,
)
from interp_model.network import Network
from schemas.job import JobSpec
from schemas.order import ReportPhase
from workers.data.dataset import JobData
from workers.evaluation.kept_maps import KeptMaps
from workers.training.inputs import Indices, Inputs


@dataclass(frozen=True)
class Parts:
    """Part interpretability of every filter of the measured layer, each on the images of its own category."""

    found: PartInterpretability
    category_F: Tensor
    """Index into `spec.data.categories`: the category that activates the filter most."""
    names_K: tuple[str, ...]
    """Names of the parts of all categories."""


def kept_for_parts(data: JobData, inputs: Inputs) -> KeptMaps:
    """Return an empty store for the maps that `measure_parts` needs twice."""
    wanted = []
    if data.measured.parts_NSS is not None:
        wanted = [index_B for category in range(len(data.categories)) for index_B in _batches(data, inputs, category)]
    return KeptMaps(wanted, 0 if inputs.is_short_of_memory else inputs.memory_limit)


@torch.no_grad()
def measure_parts(
    spec: JobSpec, network: Network, data: JobData, inputs: Inputs, report: ReportPhase, kept: KeptMaps | None = None
) -> Parts | None:
    """Measure part interpretability (Sec. 5.2.1). All maps are needed twice, first for the thresholds T_f.

    Args:
        spec: the job.
        network: the trained network.
        data: its images, with part masks.
        inputs: inputs of the measured images.
        report: called before each batch that is computed.
        kept: maps that were computed before; those that it has no room for are computed again.

    Returns:
        None if the measured images have no part masks.
    """
    if data.measured.parts_NSS is None:
        return None
    network.eval()
    names_K = tuple(dict.fromkeys(name for category in data.categories for name in category.parts))
    regions = build_regions(spec, network)
    batch = _Batch(network, data, inputs, names_K, report, kept_for_parts(data, inputs) if kept is None else kept)
    activations, of_category = [], []
    for category in range(len(spec.data.categories)):
        batches = _batches(data, inputs, category)
        threshold_F, activation_F = _thresholds(batch, batches, spec.evaluation.valid_share)
        activations.append(activation_F)
        pairs = ((batch.maps(index_B, last=True), batch.parts(index_B, category, regions)) for index_B in batches)
        of_category.append(part_interpretability(pairs, threshold_F, regions))
    # c-hat = argmax_c mean_{I in I_c} sum_ij x_ij, then that category's images alone (Sec. 5.2.1).
    best_F = torch.stack(activations).argmax(dim=0).cpu()
    return Parts(_of_own_category(of_category, best_F), best_F, names_K)


def build_regions(spec: JobSpec, network: Network) -> Regions:
    """Return the spec's rule from valid units to image regions, on the network's device."""
    layer, side = network.top_layer, spec.model.input_size
    field = network.receptive_field(layer)
    centres = tuple(field.centre_of(unit) for unit in range(network.map_side(layer)))
    radius = None if spec.evaluation.part_regions == "bilinear" else spec.evaluation.round_radius * side
    return _regions(centres, side, radius, network.bank_PHW.device)


@lru_cache(maxsize=2)
def _regions(centres: tuple[float, ...], side: int, radius: float | None, device: torch.device) -> Regions:
    """Return round regions, or bilinear ones without a radius; the jobs of a process mostly have the same."""
    centre_H = torch.tensor(centres, dtype=torch.float64, device=device)
    return BilinearRegions(centre_H, side) if radius is None else RoundRegions(centre_H, side, radius)


@dataclass(frozen=True)
class _Batch:
    """Computes maps and parts of some measured images."""

    network: Network
    data: JobData
    inputs: Inputs
    names_K: tuple[str, ...]
    report: ReportPhase
    kept: KeptMaps

    def maps(self, index_B: Indices, *, last: bool = False) -> Tensor:
        """Return the maps of some images, (B, F, H, W), and keep them unless it is the last time."""
        self.report("measuring parts")
        found = self.kept.pop(index_B) if last else self.kept.get(index_B)
        if found is None:
            found = self.network.forward_measured(self.inputs.as_they_are(index_B))
            if not last:
                self.kept.keep(index_B, found)
        return found

    def parts(self, index_B: Indices, category: int, regions: Regions) -> Tensor:
        """Return the pixels of each part in each cell of some images, see `Regions.count_bits`."""
        assert self.data.measured.parts_NSS is not None
        bits_BSS = torch.from_numpy(self.data.measured.parts_NSS.take(index_B)).to(self.network.bank_PHW.device)
        own = self.data.categories[category].parts
        return regions.count_bits(bits_BSS, [1 << own.index(name) if name in own else 0 for name in self.names_K])


def _thresholds(batch: _Batch, batches: list[Indices], share: float) -> tuple[Tensor, Tensor]:
    """Return T_f over these images, and the mean over them of the map's sum: (F,) each."""
    network, images = batch.network, sum(map(len, batches))
    valid = valid_units(share, images * network.map_side(network.top_layer) ** 2)
    total_F = network.bank_PHW.new_zeros(network.filters(network.top_layer))
    top_FR = total_F.new_zeros(len(total_F), 0)
    for index_B in batches:
        x_BFHW = batch.maps(index_B)
        top_FR = merge_top(top_FR, x_BFHW, valid + 1)
        total_F += x_BFHW.sum(dim=(0, 2, 3))
    return activation_thresholds(top_FR, valid), total_F / images


def _batches(data: JobData, inputs: Inputs, category: int) -> list[Indices]:
    """Return the measured images of a category, batch by batch."""
    index_N: Indices = np.flatnonzero(np.asarray(data.measured.categories_N) == category)
    size = inputs.evaluation_batch
    return [index_N[start : start + size] for start in range(0, len(index_N), size)]


def _of_own_category(of_category: list[PartInterpretability], best_F: Tensor) -> PartInterpretability:
    """Pick each filter's row from the measurement on its own category; add up the images of all categories."""
    filter_F = torch.arange(len(best_F))
    return PartInterpretability(
        torch.stack([found.per_filter_F.cpu() for found in of_category])[best_F, filter_F],
        torch.stack([found.per_part_FK.cpu() for found in of_category])[best_F, filter_F],
        torch.stack([found.images_K.cpu() for found in of_category]).sum(dim=0),
    )
