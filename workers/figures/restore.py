"""Restoring a finished job's network from its final checkpoint, to draw figures and explanations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from interp_model.network import Network, build_network
from schemas.job import JobSpec
from schemas.order import ReportPhase
from schemas.results import CheckpointPointer
from workers.checkpoints.loading import load_checkpoint
from workers.data.dataset import JobData, load_job_data
from workers.data.pushed.pulling import SharedData
from workers.evaluation.evaluate import filter_rows, measure, with_places
from workers.evaluation.peak_places import find_places
from workers.evaluation.peaks import find_peaks
from workers.figures import canvas, compose
from workers.figures.receptive_fields import Care
from workers.training.determinism import choose_device, without_tf32
from workers.training.inputs import Inputs
from workers.training.starting_weights import MEAN_IMAGE, NETWORK


class Restored(NamedTuple):
    """A job's network, ready for images."""

    network: Network
    """In evaluation mode."""
    mean_SS3: Tensor
    """Mean image of its training set, 0 to 255."""


def restore(
    spec: JobSpec, key: str, checkpoint: CheckpointPointer, device: torch.device
) -> tuple[Network, Mapping[str, Any]]:
    """Return the trained network in evaluation mode, and the checkpoint's state.

    Args:
        spec: the job.
        key: key of the job when it ran, which may differ from `spec.key` if defaults have changed.
        checkpoint: final checkpoint of the job.
        device: device of the network.

    Raises:
        CheckpointError: the checkpoint is missing or damaged, or belongs to another job.
    """
    state = load_checkpoint(checkpoint, key)
    network = build_network(spec.model, spec.n_outputs)
    network.load_state_dict(state[NETWORK])
    return network.eval().requires_grad_(False).to(device), state


def restore_with_mean(
    spec: JobSpec,
    key: str,
    checkpoint: CheckpointPointer,
    cache_dir: Path,
    find_data: Callable[[], Path | None],
    report: ReportPhase,
    shared: SharedData | None = None,
) -> Restored:
    """Return the trained network and the mean image of its training set.

    Args:
        spec: the job.
        key: key of the job when it ran.
        checkpoint: final checkpoint of the job.
        cache_dir: folder of prepared images.
        find_data: returns the data root; called only if the checkpoint has no mean image.
        report: receives the progress.
        shared: where photographs are pulled from that the data root lacks.
    """
    device = choose_device()
    report("loading the network")
    network, state = restore(spec, key, checkpoint, device)
    mean_SS3 = state.get(MEAN_IMAGE)
    if mean_SS3 is None:
        mean_SS3 = torch.from_numpy(load_data(spec, cache_dir, find_data(), report, shared).mean_SS3)
    return Restored(network, mean_SS3.to(device))


def load_data(
    spec: JobSpec, cache_dir: Path, data_root: Path | None, report: ReportPhase, shared: SharedData | None
) -> JobData:
    """Load the images that the job was trained and measured on.

    Raises:
        DataAbsent: neither the data root nor `shared` has them.
        DataError: the images are missing, or differ from those the job was trained on.
    """
    return load_job_data(
        spec.data,
        spec.evaluation,
        input_size=spec.model.input_size,
        seed=spec.seed,
        cache_dir=cache_dir,
        data_root=data_root,
        on_progress=report,
        shared=shared,
    )


@without_tf32()
def study(
    spec: JobSpec, key: str, checkpoint: CheckpointPointer, cache_dir: Path, data_root: Path | None,
    report: ReportPhase, shared: SharedData | None = None,
) -> compose.Studied:  # fmt: skip
    """Measure the filters on the job's images again, as far as the figures need it."""
    device = choose_device()
    network, _ = restore(spec, key, checkpoint, device)
    data = load_data(spec, cache_dir, data_root, report, shared)
    measured = Inputs(network, data.measured, data.mean_SS3, device)
    peaks = find_peaks(network, measured, report).cpu()
    found, category_F = measure(spec, data, peaks)
    rows = filter_rows(spec, data, peaks, found, category_F, None)
    rows = with_places(rows, data, find_places(data, peaks.pixel_NF2, peaks.score_NF, category_F))
    return compose.Studied(spec, network, data, measured, peaks, rows)


@without_tf32()
def draw_figure(
    studied: compose.Studied, number: int, filters: int, care: Care, report: ReportPhase, path: Path
) -> bool:
    """Draw one of the paper's Figs. 4, 5 and 6 to a PNG file. Return False if the network has nothing to show."""
    if number == 4:
        figure = compose.draw_gallery(studied, filters, care, report)
    elif number == 5:
        figure = compose.draw_fields(studied, filters, care, report)
    else:
        figure = compose.draw_heat(studied)
    if figure is None:
        return False
    canvas.save(figure, path)
    return True
