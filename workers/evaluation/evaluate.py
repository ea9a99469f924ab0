"""What a trained network is worth: accuracies, and what its filters mark on the measured images.

Shape legend: N images   B images of a batch   F filters   H = W = n map side   K landmarks   C categories.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp_model.loss.mutual_information import Information
from interp_model.mask import peak_index
from interp_model.metrics.accuracy import accuracy
from interp_model.metrics.location_instability import LocationInstability, location_instability, steadiest_category
from interp_model.network import Network
from schemas.job import FileWeights, JobSpec, PretrainSpec
from schemas.order import ReportPhase
from schemas.results import JobMetrics
from workers.data.dataset import JobData
from workers.evaluation.parts import Parts, measure_parts
from workers.evaluation.peak_places import Places, find_places
from workers.tracking.job_log import LOGGER
from workers.training.filter_information import assess
from workers.training.inputs import Inputs
from workers.training.trainer import Trainer

IMAGES_ARE = {"generated": "generated animals", "photographs": "photographs"}
"""What a person is told of `data.images`."""


@dataclass(frozen=True)
class Peaks:
    """Where and how strongly every filter of the measured layer peaks, before masking."""

    unit_NF: Tensor
    """Row * n + column on the map."""
    pixel_NF2: Tensor
    """(row, col) of the receptive field's centre, in pixel indices of the network's input as landmarks are."""
    score_NF: Tensor


@dataclass(frozen=True)
class FilterRow:
    """One filter of the measured layer, a row of `tables/filters.csv`."""

    filter: int
    category: str
    """Whose parts it marks most steadily; the job's own category where there is one only."""
    assigned_category: str
    """Whose parts the filter loss made it mark; empty without a filter loss."""
    location_instability: float | None
    """Mean over the landmarks; None where too few images can be used."""
    per_landmark: dict[str, float | None]
    images_used: dict[str, int]
    fires: bool
    """On any measured image."""
    firing_rate: float
    peak_spread: float | None
    """How far its peaks scatter over the image, as a share of the diagonal (standard deviation from their mean place).
    Near 0 the filter stands still whatever the image shows, and a low instability says nothing for it."""
    peak_mean: float
    peak_std: float
    peak_max: float
    part_interpretability: float | None = None
    """P_f, on the images of the category that activates it most; None where it cannot be measured."""
    best_part: str = ""
    """The part that P_f is about; empty where that is 0, or cannot be measured."""
    best_part_category: str = ""
    """The category whose part that is."""
    per_part: dict[str, float | None] = field(default_factory=dict)
    """P_fk."""
    peaks_near: dict[str, float | None] = field(default_factory=dict)
    """In what share of its category's images each landmark is the nearest to its peak."""
    peaks_on: dict[str, float | None] = field(default_factory=dict)
    """In what share its peak lies on each part, or beside them all; empty where the images have no part masks."""
    mutual_information: float | None = None
    """What its maps tell of the templates on held-out images (Eq. 1), and the two entropies of Eq. 5, in nats."""
    category_entropy: float | None = None
    spatial_entropy: float | None = None


@dataclass(frozen=True)
class Evaluation:
    """Everything measured of one network."""

    metrics: JobMetrics
    rows: list[FilterRow]
    peaks: Peaks


def evaluate(
    trainer: Trainer, data: JobData, train: Inputs, test: Inputs, measured: Inputs, report: ReportPhase
) -> Evaluation:
    """Both accuracies, and every filter of the top layer; no image is mirrored."""
    spec, network = trainer.spec, trainer.network
    report("measuring accuracy")
    held_out = assess(network, test)
    test_accuracy = accuracy(held_out.logits_NO, test.label_N, spec.loss)
    train_accuracy = accuracy(predict(network, train), train.label_N, spec.loss)
    peaks = find_peaks(network, measured, report)
    found, category_F = measure(spec, data, peaks)
    parts = measure_parts(spec, network, data, measured, report)
    rows = filter_rows(spec, data, peaks, found, category_F, trainer.assigned_categories())
    rows = with_information(rows, held_out.information)
    rows = with_places(rows, data, find_places(data, peaks.pixel_NF2, peaks.score_NF, category_F))
    metrics = summarise(spec, network, data, found, rows, train_accuracy=train_accuracy, test_accuracy=test_accuracy)
    assigned_F = trainer.assigned_categories()
    counts = assigned_filters(spec, held_out.category_F if assigned_F is None else assigned_F)
    metrics = metrics.model_copy(update={"assigned_filters": counts})
    if parts is not None:
        rows = with_parts(spec, rows, parts)
        metrics = metrics.model_copy(update=part_summary(spec, network, parts))
    return Evaluation(metrics, rows, peaks)


@torch.no_grad()
def predict(network: Network, inputs: Inputs) -> Tensor:
    """Return the logits of all images, without flips: (N, O)."""
    network.eval()
    return torch.cat([network.forward_head(inputs.as_they_are(index_B)).logits for index_B in inputs.batches()])


@torch.no_grad()
def find_peaks(network: Network, inputs: Inputs, report: ReportPhase) -> Peaks:
    """Peaks of the measured layer's filters on every image, none mirrored."""
    network.eval()
    units, scores = [], []
    for index_B in inputs.batches():
        report("measuring filters")
        x_BFHW = network.forward_head(inputs.as_they_are(index_B)).maps[network.top_layer]
        units.append(peak_index(x_BFHW).cpu())
        scores.append(x_BFHW.flatten(2).amax(dim=2).cpu())
    unit_NF = torch.cat(units)
    return Peaks(unit_NF, unit_to_pixel(network, unit_NF), torch.cat(scores))


def unit_to_pixel(network: Network, unit_NF: Tensor) -> Tensor:
    """(row, col) of the centre of each unit's receptive field, in pixel indices: (N, F, 2)."""
    n, field = network.map_side(network.top_layer), network.receptive_field(network.top_layer)
    # Receptive fields measure from the image's edge, where pixel 0 has its centre at 0.5; landmarks have it at 0.
    centre_H = torch.tensor([field.centre_of(unit) - 0.5 for unit in range(n)], dtype=torch.float64)
    return torch.stack([centre_H[unit_NF // n], centre_H[unit_NF % n]], dim=2)


def measure(spec: JobSpec, data: JobData, peaks: Peaks) -> tuple[LocationInstability, Tensor]:
    """Location instability of every filter, on the images of the category that it marks most steadily.

    Returns:
        The measurement, and each filter's category as an index into `spec.data.categories`: (F,).
    """
    category_N = torch.from_numpy(np.asarray(data.measured.categories_N))
    landmark_NK2 = torch.from_numpy(np.asarray(data.measured.landmarks_NK2))
    diagonal = math.sqrt(2) * spec.model.input_size
    of_category = []
    for index in range(len(spec.data.categories)):
        row_N = torch.nonzero(category_N == index).squeeze(dim=1)
        of_category.append(
            location_instability(
                peaks.pixel_NF2[row_N],
                peaks.score_NF[row_N],
                landmark_NK2[row_N],
                torch.full((len(row_N),), diagonal),
                spec.evaluation.top_images,
                spec.evaluation.fewest_images,
            )
        )
    _, best_F = steadiest_category(torch.stack([found.per_filter_F for found in of_category]))
    filter_F = torch.arange(len(best_F))
    chosen = LocationInstability(*(torch.stack(column)[best_F, filter_F] for column in zip(*of_category, strict=True)))
    return chosen, best_F


def filter_rows(
    spec: JobSpec,
    data: JobData,
    peaks: Peaks,
    found: LocationInstability,
    category_F: Tensor,
    assigned_F: Tensor | None,
) -> list[FilterRow]:
    """The table of filters, one row each, in the layer's order."""
    rows = []
    for index, score_N in enumerate(peaks.score_NF.unbind(dim=1)):
        names = data.landmark_names
        rows.append(
            FilterRow(
                filter=index,
                category=spec.data.categories[int(category_F[index])],
                assigned_category="" if assigned_F is None else spec.data.categories[int(assigned_F[index])],
                location_instability=_or_none(found.per_filter_F[index]),
                per_landmark={name: _or_none(found.per_landmark_FK[index, k]) for k, name in enumerate(names)},
                images_used={name: int(found.images_used_FK[index, k]) for k, name in enumerate(names)},
                fires=bool((score_N > 0).any()),
                firing_rate=(score_N > 0).double().mean().item(),
                peak_spread=_spread(peaks.pixel_NF2[score_N > 0, index], spec.model.input_size),
                peak_mean=score_N.mean().item(),
                peak_std=score_N.std().item(),
                peak_max=score_N.max().item(),
            )
        )
    return rows


def assigned_filters(spec: JobSpec, category_F: Tensor) -> dict[str, int]:
    """How many filters stand for each of several categories; says so in the log where one has none."""
    if spec.is_single:
        return {}
    counts = torch.bincount(category_F.cpu(), minlength=spec.n_outputs).tolist()
    found = dict(zip(spec.output_labels, counts, strict=True))
    if empty := [name for name, count in found.items() if count == 0]:
        LOGGER.warning("no filter stands for %s: these categories activate none the most", ", ".join(empty))
    return found


def with_information(rows: Sequence[FilterRow], told: Information) -> list[FilterRow]:
    """The same table with why each filter is clean or not: which of Eq. 5's entropies its maps leave."""
    columns = (told.mutual_F.tolist(), told.category_F.tolist(), told.spatial_F.tolist())
    return [
        replace(row, mutual_information=mutual, category_entropy=category, spatial_entropy=spatial)
        for row, mutual, category, spatial in zip(rows, *columns, strict=True)
    ]


def with_places(rows: Sequence[FilterRow], data: JobData, places: Places) -> list[FilterRow]:
    """The same table with where on the animal each filter peaks."""
    near, on = places.near.share_FK, places.on.share_FK if places.on else None
    return [
        replace(
            row,
            peaks_near={name: _or_none(near[row.filter, k]) for k, name in enumerate(data.landmark_names)},
            peaks_on={name: _or_none(on[row.filter, k]) for k, name in enumerate(places.parts)}
            if on is not None
            else {},
        )
        for row in rows
    ]


def with_parts(spec: JobSpec, rows: Sequence[FilterRow], parts: Parts) -> list[FilterRow]:
    """The same table with what part interpretability says of each filter."""
    found = parts.found
    filled = []
    for row, category, best in zip(rows, parts.category_F.tolist(), found.best_part_F.tolist(), strict=True):
        value = _or_none(found.per_filter_F[row.filter])
        filled.append(
            replace(
                row,
                part_interpretability=value,
                best_part=parts.names_K[best] if value else "",
                best_part_category=spec.data.categories[category] if value else "",
                per_part={name: _or_none(found.per_part_FK[row.filter, k]) for k, name in enumerate(parts.names_K)},
            )
        )
    return filled


def part_summary(spec: JobSpec, network: Network, parts: Parts) -> dict[str, Any]:
    """What part interpretability adds to a job's numbers."""
    found = parts.found
    per_part_K = found.per_part_FK.nanmean(dim=0)
    associated = {name: _or_none(per_part_K[k]) for k, name in enumerate(parts.names_K)}
    return {
        "part_interpretability": _or_none(found.per_filter_F.nanmean()),
        "part_association": {name: value for name, value in associated.items() if value is not None},
        "part_images": dict(zip(parts.names_K, found.images_K.tolist(), strict=True)),
        "part_filters_left_out": int(found.left_out_F.sum()),
        "part_valid_units": spec.evaluation.valid_share * network.map_side(network.top_layer) ** 2,
        "part_regions": spec.evaluation.part_regions,
    }


def summarise(
    spec: JobSpec,
    network: Network,
    data: JobData,
    found: LocationInstability,
    rows: Sequence[FilterRow],
    *,
    train_accuracy: float,
    test_accuracy: float,
) -> JobMetrics:
    """The numbers of one job."""
    per_landmark_K = found.per_landmark_FK.nanmean(dim=0)
    spreads = [row.peak_spread for row in rows if row.peak_spread is not None]
    landmark = {name: _or_none(per_landmark_K[k]) for k, name in enumerate(data.landmark_names)}
    return JobMetrics(
        test_accuracy=test_accuracy,
        train_accuracy=train_accuracy,
        location_instability=_or_none(found.per_filter_F.nanmean()),
        landmark_instability={name: value for name, value in landmark.items() if value is not None},
        measured_layer=network.top_layer,
        measured_split=spec.evaluation.split,
        measured_images=len(data.measured),
        filters=len(found.per_filter_F),
        filters_left_out=int(found.left_out_F.sum()),
        peak_spread=fmean(spreads) if spreads else None,
        images=spec.data.images,
        weights=starting_weights(spec),
        skipped_images=len(data.skipped),
    )


def starting_weights(spec: JobSpec) -> str:
    """Where the network started, with the images that an upstream job saw, or what an imported file learned."""
    if isinstance(spec.weights, PretrainSpec):
        return f"pre-training on {IMAGES_ARE[spec.weights.data.images]}"
    if isinstance(spec.weights, FileWeights) and spec.weights.label:
        return spec.weights.label
    return spec.weights.source


def _spread(pixel_N2: Tensor, side: int) -> float | None:
    """sqrt(var row + var column) over the image's diagonal; None for fewer than two peaks."""
    if len(pixel_N2) < 2:
        return None
    return pixel_N2.var(dim=0).sum().sqrt().item() / (math.sqrt(2) * side)


def _or_none(value: Tensor) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None
