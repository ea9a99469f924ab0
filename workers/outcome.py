"""The files a finished job leaves, under fixed names: tables, figures and the final checkpoint.

Shape legend: N images   B chosen images   F filters   H = W = map side   S input side.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from schemas.categories import BY_ID
from schemas.job import JobSpec, PretrainSpec, RandomWeights
from schemas.results import CheckpointPointer
from workers import figures
from workers.data.dataset import JobData
from workers.evaluate import IMAGES_ARE, Evaluation, FilterRow, Peaks
from workers.inputs import Indices, Inputs
from workers.tracking import CHECKPOINT_FILE, FILTERS_FILE, METRICS_FILE
from workers.train import Trainer

GALLERY_FILTERS = 4
GALLERY_IMAGES, GALLERY_IMAGES_UNMASKED = 3, 6
PEAK_FILTERS, PEAK_IMAGES = 5, 12


def write_outcome(
    folder: Path, trainer: Trainer, data: JobData, measured: Inputs, found: Evaluation, checkpoint: CheckpointPointer
) -> None:
    """Lay out under `folder` what the run is to hold."""
    spec, layer = trainer.spec, trainer.network.top_layer
    (folder / METRICS_FILE).write_text(found.metrics.model_dump_json(indent=2))
    write_filters(folder / FILTERS_FILE, found.rows)
    drawn = {"curves": figures.draw_curves(trainer.records, figures.Title(subject(spec), "training, per epoch"))}
    steadiest = [row for row in steadiest_filters(found.rows) if row.location_instability is not None]
    if steadiest:
        shown = steadiest[:GALLERY_FILTERS]
        title = figures.Title(subject(spec), f"steadiest filters of {layer}, on the images that excite each most")
        drawn["filters"] = figures.draw_gallery(gallery_strips(trainer, data, measured, found.peaks, shown), title)
        shown = steadiest[:PEAK_FILTERS]
        names = [f"filter {row.filter} ({row.location_instability:.3f})" for row in shown]
        what = f"peaks of the steadiest filters of {layer} (location instability) and landmarks"
        title = figures.Title(subject(spec), what)
        drawn["peaks"] = figures.draw_peaks(marked_images(data, found.peaks, shown), names, title)
    for name, figure in drawn.items():
        figures.save(figure, folder / "figures" / f"{name}.png")
    target = folder / CHECKPOINT_FILE
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(checkpoint.path)  # followed when the folder is logged


def subject(spec: JobSpec) -> str:
    """What a figure shows, with everything that is not real said so."""
    parts = [spec.title, IMAGES_ARE[spec.data.images]]
    if isinstance(spec.weights, RandomWeights):
        parts.append("random initial weights")
    elif isinstance(spec.weights, PretrainSpec) and spec.weights.data.images != spec.data.images:
        parts.append(f"pre-trained on {IMAGES_ARE[spec.weights.data.images]}")
    return " · ".join(parts)


def write_filters(path: Path, rows: Sequence[FilterRow]) -> None:
    """One line a filter, in the layer's order; empty where there is no value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = [_flat(row) for row in rows]
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(table[0]))
        writer.writeheader()
        writer.writerows(table)


def steadiest_filters(rows: Sequence[FilterRow]) -> list[FilterRow]:
    """Lowest instability first; those that fire on fewer than half the images last, since little speaks for them."""
    return sorted(rows, key=lambda row: (row.share_firing < 0.5, row.location_instability or 0.0))


@torch.no_grad()
def gallery_strips(
    trainer: Trainer, data: JobData, measured: Inputs, peaks: Peaks, rows: Sequence[FilterRow]
) -> list[figures.FilterStrip]:
    """Each filter on the images that excite it most."""
    network = trainer.network
    has_masks = bool(network.interpretable_layers) and network.model.mask
    count = min(GALLERY_IMAGES if has_masks else GALLERY_IMAGES_UNMASKED, len(measured))
    strips = []
    for row in rows:
        index_B: Indices = peaks.score_NF[:, row.filter].topk(count).indices.numpy()
        map_BHW = network.forward_upper(measured.as_they_are(index_B)).maps[network.top_layer][:, row.filter].cpu()
        mask_BHW = network.bank_PHW.cpu()[peaks.unit_NF[index_B, row.filter]] if has_masks else None
        shown = [
            figures.Shown(image, map_BHW[b].numpy(), None if mask_BHW is None else mask_BHW[b].numpy())
            for b, image in enumerate(data.measured.take(index_B))
        ]
        label = f"filter {row.filter}\ninstability {row.location_instability:.3f}\n{BY_ID[row.category].label}"
        strips.append(figures.FilterStrip(label, shown))
    return strips


def marked_images(data: JobData, peaks: Peaks, rows: Sequence[FilterRow]) -> list[figures.Marked]:
    """Evenly spaced measured images, chosen without looking at any peak."""
    count = min(PEAK_IMAGES, len(data.measured))
    index_B = np.linspace(0, len(data.measured) - 1, count).round().astype(np.int64)
    filters = [row.filter for row in rows]
    fires_BF = (peaks.score_NF[index_B][:, filters] > 0).numpy()
    peak_BF2 = np.where(fires_BF[:, :, None], peaks.pixel_NF2[index_B][:, filters].numpy(), np.nan)
    return [
        figures.Marked(image, peak_BF2[b], _visible(data, int(index_B[b])))
        for b, image in enumerate(data.measured.take(index_B))
    ]


def _visible(data: JobData, index: int) -> dict[str, tuple[float, float]]:
    points = zip(data.landmark_names, data.measured.landmarks_NK2[index], strict=True)
    return {name: (float(row), float(column)) for name, (row, column) in points if not np.isnan(row)}


def _flat(row: FilterRow) -> dict[str, Any]:
    fields = dict(vars(row))
    per_landmark, images_used = fields.pop("per_landmark"), fields.pop("images_used")
    per_part = fields.pop("per_part")
    fields |= {f"instability.{name}": value for name, value in per_landmark.items()}
    fields |= {f"images_used.{name}": value for name, value in images_used.items()}
    return fields | {f"part.{name}": value for name, value in per_part.items()}
