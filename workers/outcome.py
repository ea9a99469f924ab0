"""The tables and figures that a finished job logs, under fixed names."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from schemas.order import ReportPhase
from workers.data.dataset import JobData
from workers.evaluation.evaluate import Evaluation, FilterRow
from workers.figures import canvas, compose, plots
from workers.tracking.run_log import FIGURE_FILES, FILTERS_FILE, GALLERY_FILE, METRICS_FILE, SPEC_FILE
from workers.training.filter_information import INFORMATION_IMAGES
from workers.training.inputs import Inputs
from workers.training.trainer import Trainer


def write_outcome(
    folder: Path,
    trainer: Trainer,
    data: JobData,
    measured: Inputs,
    found: Evaluation,
    report: ReportPhase,
) -> None:
    """Write the tables and figures of a finished job to a folder that is then logged as a whole.

    Args:
        folder: where to write.
        trainer: the trained network and its records.
        data: the job's images.
        measured: inputs of the measured images.
        found: the evaluation.
        report: called with the phase.
    """
    (folder / SPEC_FILE).write_text(trainer.spec.model_dump_json(indent=2))
    (folder / METRICS_FILE).write_text(found.metrics.model_dump_json(indent=2))
    write_filters(folder / FILTERS_FILE, found.rows)
    studied = compose.Studied(trainer.spec, trainer.network, data, measured, found.peaks, found.rows)
    drawn = {
        "figures/curves.png": plots.draw_curves(
            trainer.records,
            studied.title(describe_epochs(trainer.network.top_layer, train=len(data.train), held_out=len(data.test))),
            found.metrics.chance_accuracy,
        ),
        GALLERY_FILE: compose.draw_gallery(studied, compose.SHOWN_FILTERS, None, report),
        FIGURE_FILES[6]: compose.draw_heat(studied),
        "figures/peaks.png": compose.draw_peaks(studied),
    }
    for name, figure in drawn.items():
        if figure is not None:
            canvas.save(figure, folder / name)


def describe_epochs(layer: str, *, train: int, held_out: int) -> str:
    """Return what the curves of training were measured on.

    Args:
        layer: name of the measured layer.
        train: number of training images.
        held_out: number of held-out images.
    """
    return (
        f"per epoch: losses, accuracy and peaks of {layer} on {train} training images; accuracy on "
        f"{held_out} held-out images, and information in the filters on {min(INFORMATION_IMAGES, held_out)} of them"
    )


def write_filters(path: Path, rows: Sequence[FilterRow]) -> None:
    """Write a CSV with one row per filter, in the layer's order; a cell without value is empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = [_flat(row) for row in rows]
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(table[0]))
        writer.writeheader()
        writer.writerows(table)


def read_places(table: str) -> dict[int, str]:
    """Return where on the animal each filter usually peaks, by filter number, from a table of `write_filters`."""
    return {int(line["filter"]): place for line in csv.DictReader(io.StringIO(table)) if (place := _place(line))}


def _place(line: Mapping[str, str]) -> str:
    near, on = (
        {name.removeprefix(start): float(cell) for name, cell in line.items() if name.startswith(start) and cell}
        for start in ("peaks_near.", "peaks_on.")
    )
    return compose.usual_place(on, near)


def _flat(row: FilterRow) -> dict[str, Any]:
    fields = dict(vars(row))
    per_landmark, images_used = fields.pop("per_landmark"), fields.pop("images_used")
    per_part = fields.pop("per_part")
    fields |= {f"instability.{name}": value for name, value in per_landmark.items()}
    fields |= {f"images_used.{name}": value for name, value in images_used.items()}
    near, on = fields.pop("peaks_near"), fields.pop("peaks_on")
    fields |= {f"part.{name}": value for name, value in per_part.items()}
    fields |= {f"peaks_near.{name}": value for name, value in near.items()}
    return fields | {f"peaks_on.{name}": value for name, value in on.items()}
