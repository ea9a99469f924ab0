"""Measures a trained network: its accuracies, and what its filters mark on the measured images.

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
from interp_model.metrics.accuracy import accuracy, chance_level
from interp_model.metrics.location_instability import LocationInstability, location_instability, steadiest_category
from interp_model.network import Network
from schemas.job import EVERYTHING, EverythingSpec, FileWeights, JobSpec, PretrainSpec
from schemas.order import ReportPhase
from schemas.results import JobMetrics
from workers.data.dataset import JobData
from workers.evaluation.controls import Controls, measure_controls
from workers.evaluation.parts import Parts, kept_for_parts, measure_parts
from workers.evaluation.peak_places import Places, find_places
from workers.evaluation.peaks import Peaks, find_peaks
from workers.tracking.job_log import LOGGER
from workers.training.filter_information import assess
from workers.training.inputs import Inputs
from workers.training.trainer import Trainer

IMAGES_ARE = {"generated": "generated animals", "photographs": "photographs"}
"""Words for `data.images`."""


@dataclass(frozen=True)
class FilterRow:
    """One filter of the measured layer: a row of `tables/filters.csv`."""

    filter: int
    category: str
    """Category on whose images the filter is steadiest (lowest location instability); of data without landmarks the one
    that activates it most."""
    assigned_category: str
    """Category that the filter loss assigned to the filter; empty without a filter loss."""
    location_instability: float | None
    """Mean over the landmarks; None if too few images can be used."""
    per_landmark: dict[str, float | None]
    """Location instability by landmark."""
    images_used: dict[str, int]
    """Number of images by landmark."""
    fires: bool
    """Whether the filter fires on any measured image."""
    firing_rate: float
    """Fraction of the measured images on which the filter fires."""
    peak_spread: float | None
    """Standard deviation of the peaks from their mean place, as a fraction of the image's diagonal. Near 0 the filter
    peaks at the same place whatever the image shows, and a low instability is no sign of a good filter."""
    peak_mean: float
    peak_std: float
    peak_max: float
    shuffled_instability: float | None = None
    """Location instability if the peaks are dealt out at random among the filter's images."""
    tracking_share: float | None = None
    """1 - location instability / shuffled instability; 0 if the peaks ignore the image."""
    random_instability: float | None = None
    """Location instability of random places of the map on the same images."""
    centre_instability: float | None = None
    """Location instability of the image's centre on the same images."""
    best_fixed_instability: float | None = None
    """Lowest location instability of one place of the map on the same images."""
    held_out_instability: float | None = None
    """Location instability on the images that the job was not trained on."""
    near_landmark: str = ""
    """Landmark that is near the peak most often; empty if none is measured."""
    near_share: float | None = None
    """Share of the images showing that landmark in which it is near the peak."""
    stability: float | None = None
    """Share of images in which noise does not change which landmarks are near the peak."""
    part_interpretability: float | None = None
    """P_f, on the images of the category that activates the filter most; None if it cannot be measured."""
    best_part: str = ""
    """Part with the highest P_fk; empty if P_f is 0 or cannot be measured."""
    best_part_category: str = ""
    """Category of the best part."""
    per_part: dict[str, float | None] = field(default_factory=dict)
    """P_fk by part."""
    peaks_near: dict[str, float | None] = field(default_factory=dict)
    """Fraction of its category's images in which each landmark is the nearest to the peak."""
    peaks_on: dict[str, float | None] = field(default_factory=dict)
    """Fraction of those images in which the peak lies on each part or on none; empty without part masks."""
    mutual_information: float | None = None
    """Mutual information of maps and templates on held-out images (Eq. 1), in nats."""
    category_entropy: float | None = None
    """Inter-category entropy of Eq. 5, in nats."""
    spatial_entropy: float | None = None
    """Spatial entropy of Eq. 5, in nats."""


@dataclass(frozen=True)
class Evaluation:
    """All measurements of one network."""

    metrics: JobMetrics
    rows: list[FilterRow]
    peaks: Peaks


def evaluate(
    trainer: Trainer, data: JobData, train: Inputs, test: Inputs, measured: Inputs, report: ReportPhase
) -> Evaluation:
    """Measure both accuracies and every filter of the top layer, without flips.

    Args:
        trainer: the trained network.
        data: the job's images.
        train: inputs of the training images.
        test: inputs of the test images.
        measured: inputs of the images that the filters are measured on.
        report: called with the phase, often; may raise to stop.
    """
    spec, network = trainer.spec, trainer.network
    report("measuring accuracy")
    held_out = assess(network, test)
    test_accuracy = accuracy(held_out.logits_NO, test.label_N, spec.loss)
    train_accuracy = accuracy(predict(network, train), train.label_N, spec.loss)
    kept = kept_for_parts(data, measured)
    peaks = find_peaks(network, measured, report, kept)
    found, category_F = measure(spec, data, peaks)
    parts = measure_parts(spec, network, data, measured, report, kept)
    assigned_F, host_peaks = trainer.assigned_categories(), peaks.cpu()
    rows = filter_rows(spec, data, host_peaks, found, category_F, assigned_F)
    rows = with_information(rows, held_out.information)
    controls = measure_controls(spec, network, data, measured, peaks, found.per_filter_F, category_F, report)
    rows = with_controls(rows, data, controls)
    rows = with_places(rows, data, find_places(data, peaks.pixel_NF2, peaks.score_NF, category_F))
    metrics = summarise(spec, network, data, found, rows, train_accuracy=train_accuracy, test_accuracy=test_accuracy)
    counts = assigned_filters(spec, held_out.category_F if assigned_F is None else assigned_F)
    chance = chance_level(test.label_N, spec.n_outputs, spec.loss)
    metrics = metrics.model_copy(update={"assigned_filters": counts, "chance_accuracy": chance, **controls.summary()})
    if parts is not None:
        rows = with_parts(spec, rows, parts)
        metrics = metrics.model_copy(update=part_summary(spec, network, parts))
    return Evaluation(metrics, rows, host_peaks)


@torch.no_grad()
def predict(network: Network, inputs: Inputs) -> Tensor:
    """Return the logits of all images, without flips: (N, O)."""
    network.eval()
    return torch.cat([network.forward_head(inputs.as_they_are(index_B)).logits for index_B in inputs.batches()])


def measure(spec: JobSpec, data: JobData, peaks: Peaks) -> tuple[LocationInstability, Tensor]:
    """Measure location instability (Sec. 5.2.2) of every filter, on images of the category where it is lowest.

    Returns:
        The measurement, and each filter's category as an index into `spec.data.categories`: (F,).
    """
    device = peaks.unit_NF.device
    category_N = torch.from_numpy(np.asarray(data.measured.categories_N)).to(device)
    landmark_NK2 = torch.from_numpy(np.asarray(data.measured.landmarks_NK2)).to(device)
    diagonal = math.sqrt(2) * spec.model.input_size
    of_category = []
    for index in range(len(spec.data.categories)):
        row_N = torch.nonzero(category_N == index).squeeze(dim=1)
        of_category.append(
            location_instability(
                peaks.pixel_NF2[row_N],
                peaks.score_NF[row_N],
                landmark_NK2[row_N],
                torch.full((len(row_N),), diagonal, device=device),
                spec.evaluation.top_images,
                spec.evaluation.fewest_images,
            )
        )
    if data.landmark_names:
        _, best_F = steadiest_category(torch.stack([found.per_filter_F for found in of_category]))
    else:  # no category is steadier than another
        rows = [category_N == index for index in range(len(of_category))]
        best_F = torch.stack([peaks.score_NF[row_N].mean(dim=0) for row_N in rows]).argmax(dim=0)
    filter_F = torch.arange(len(best_F), device=device)
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
    """Build the table of filters: one row each, in the layer's order."""
    names, fires_NF = data.landmark_names, peaks.score_NF > 0
    assigned = [""] * len(category_F) if assigned_F is None else [spec.data.categories[c] for c in assigned_F.tolist()]
    columns = zip(
        category_F.tolist(),
        assigned,
        _values(found.per_filter_F),
        found.per_landmark_FK.tolist(),
        found.images_used_FK.tolist(),
        fires_NF.double().mean(dim=0).tolist(),
        peaks.score_NF.amax(dim=0).tolist(),
        strict=True,
    )
    return [
        FilterRow(
            filter=index,
            category=spec.data.categories[category],
            assigned_category=own,
            location_instability=instability,
            per_landmark=_named(names, landmarks),
            images_used=dict(zip(names, images, strict=False)),
            fires=rate > 0,
            firing_rate=rate,
            peak_spread=_spread(peaks.pixel_NF2[fires_NF[:, index], index], spec.model.input_size),
            peak_mean=peaks.score_NF[:, index].mean().item(),
            peak_std=peaks.score_NF[:, index].std().item(),
            peak_max=highest,
        )
        for index, (category, own, instability, landmarks, images, rate, highest) in enumerate(columns)
    ]


def assigned_filters(spec: JobSpec, category_F: Tensor) -> dict[str, int]:
    """Count the filters of each category, and log a warning for categories without any; empty for a single category.

    Args:
        spec: the job.
        category_F: category of each filter, as an index of an output.
    """
    if spec.is_single:
        return {}
    counts = torch.bincount(category_F.cpu(), minlength=spec.n_outputs).tolist()
    found = dict(zip(spec.output_labels, counts, strict=True))
    if empty := [name for name, count in found.items() if count == 0]:
        LOGGER.warning("no filter has category %s: no filter responds most to these categories", ", ".join(empty))
    return found


def with_information(rows: Sequence[FilterRow], found: Information) -> list[FilterRow]:
    """Add each filter's mutual information (Eq. 1) and entropies (Eq. 5) to the table."""
    columns = (found.mutual_F.tolist(), found.category_F.tolist(), found.spatial_F.tolist())
    return [
        replace(row, mutual_information=mutual, category_entropy=category, spatial_entropy=spatial)
        for row, mutual, category, spatial in zip(rows, *columns, strict=True)
    ]


def with_controls(rows: Sequence[FilterRow], data: JobData, found: Controls) -> list[FilterRow]:
    """Add to the table what each filter's location instability is worth."""
    columns = {name: _values(value_F) for name, value_F in found.per_filter().items()}
    landmarks = found.consistency.landmark_F.tolist()
    filled = []
    for row in rows:
        values: dict[str, Any] = {name: column[row.filter] for name, column in columns.items()}
        landmark = data.landmark_names[landmarks[row.filter]] if values["near_share"] else ""
        filled.append(replace(row, near_landmark=landmark, **values))
    return filled


def with_places(rows: Sequence[FilterRow], data: JobData, places: Places) -> list[FilterRow]:
    """Add to the table where on the animal each filter peaks."""
    near = places.near.share_FK.tolist()
    on = [[]] * len(rows) if places.on is None else places.on.share_FK.tolist()
    return [
        replace(
            row,
            peaks_near=_named(data.landmark_names, near[row.filter]),
            peaks_on=_named(places.parts, on[row.filter]),
        )
        for row in rows
    ]


def with_parts(spec: JobSpec, rows: Sequence[FilterRow], parts: Parts) -> list[FilterRow]:
    """Add each filter's part interpretability (Sec. 5.2.1) to the table."""
    found = parts.found
    values, per_part = _values(found.per_filter_F), found.per_part_FK.tolist()
    filled = []
    for row, category, best in zip(rows, parts.category_F.tolist(), found.best_part_F.tolist(), strict=True):
        value = values[row.filter]
        filled.append(
            replace(
                row,
                part_interpretability=value,
                best_part=parts.names_K[best] if value else "",
                best_part_category=spec.data.categories[category] if value else "",
                per_part=_named(parts.names_K, per_part[row.filter]),
            )
        )
    return filled


def part_summary(spec: JobSpec, network: Network, parts: Parts) -> dict[str, Any]:
    """Return the fields of JobMetrics that come from part interpretability."""
    found = parts.found
    per_part_K = found.per_part_FK.nanmean(dim=0)
    associated = _named(parts.names_K, per_part_K.tolist())
    return {
        "part_interpretability": _or_none(found.per_filter_F.nanmean().item()),
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
    """Summarise the table and the accuracies as the metrics of the job."""
    per_landmark_K = found.per_landmark_FK.nanmean(dim=0)
    spreads = [row.peak_spread for row in rows if row.peak_spread is not None]
    landmark = _named(data.landmark_names, per_landmark_K.tolist())
    return JobMetrics(
        test_accuracy=test_accuracy,
        train_accuracy=train_accuracy,
        location_instability=_or_none(found.per_filter_F.nanmean().item()),
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
    """Describe the initial weights: their source, and the images that an upstream job or an imported file used."""
    if isinstance(spec.weights, PretrainSpec):
        return f"pre-training on {IMAGES_ARE[spec.weights.data.images]}"
    if isinstance(spec.weights, EverythingSpec):
        return f"pre-training on {EVERYTHING}"
    if isinstance(spec.weights, FileWeights) and spec.weights.label:
        return spec.weights.label
    return spec.weights.source


def _spread(pixel_N2: Tensor, side: int) -> float | None:
    """Return sqrt(var row + var column) over the image's diagonal; None for fewer than two peaks."""
    if len(pixel_N2) < 2:
        return None
    return pixel_N2.var(dim=0).sum().sqrt().item() / (math.sqrt(2) * side)


def _values(value_F: Tensor) -> list[float | None]:
    return [_or_none(value) for value in value_F.tolist()]


def _named(names: Sequence[str], values: Sequence[float]) -> dict[str, float | None]:
    """Return values by name. Data without landmarks have one column of values, and no name."""
    return {name: _or_none(value) for name, value in zip(names, values, strict=False)}


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
