"""A finished job's network, brought back from its final checkpoint to be looked at again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp_model.network import Network, build_network
from schemas.job import JobSpec
from schemas.order import ReportPhase
from schemas.results import CheckpointPointer
from workers.checkpoints.loading import load_checkpoint
from workers.data.dataset import JobData, load_job_data
from workers.evaluation.evaluate import filter_rows, find_peaks, measure, with_places
from workers.evaluation.peak_places import find_places
from workers.figures import canvas, compose
from workers.figures.receptive_fields import Care
from workers.training.determinism import choose_device
from workers.training.inputs import Inputs
from workers.training.starting_weights import MEAN_IMAGE, NETWORK


def restore(
    spec: JobSpec, key: str, checkpoint: CheckpointPointer, device: torch.device
) -> tuple[Network, Mapping[str, Any]]:
    """The trained network, ready to be looked at, and the whole state of its checkpoint.

    Args:
        key: of the job; that of a spec whose defaults have changed since would be another.

    Raises:
        CheckpointError: the checkpoint is missing, torn, or not that job's.
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
) -> tuple[Network, Tensor]:
    """The trained network and the mean image that it wants taken from every image: (S, S, 3).

    Args:
        find_data: asked only where the checkpoint is an older version's, which has no mean image.
    """
    device = choose_device()
    report("loading the network")
    network, state = restore(spec, key, checkpoint, device)
    mean_SS3 = state.get(MEAN_IMAGE)
    if mean_SS3 is None:
        mean_SS3 = torch.from_numpy(load_data(spec, cache_dir, find_data(), report).mean_SS3)
    return network, mean_SS3.to(device)


def load_data(spec: JobSpec, cache_dir: Path, data_root: Path | None, report: ReportPhase) -> JobData:
    """
    Raises:
        DataError: the job's images are not there, or not the ones that it was trained on.
    """
    return load_job_data(
        spec.data,
        spec.evaluation,
        input_size=spec.model.input_size,
        seed=spec.seed,
        cache_dir=cache_dir,
        data_root=data_root,
        on_progress=report,
    )


def study(
    spec: JobSpec, key: str, checkpoint: CheckpointPointer, cache_dir: Path, data_root: Path | None, report: ReportPhase
) -> compose.Studied:
    """Look at the measured images again, as far as the figures need it."""
    device = choose_device()
    network, _ = restore(spec, key, checkpoint, device)
    data = load_data(spec, cache_dir, data_root, report)
    measured = Inputs(network, data.measured, data.mean_SS3, device)
    peaks = find_peaks(network, measured, report)
    found, category_F = measure(spec, data, peaks)
    rows = filter_rows(spec, data, peaks, found, category_F, None)
    rows = with_places(rows, data, find_places(data, peaks.pixel_NF2, peaks.score_NF, category_F))
    return compose.Studied(spec, network, data, measured, peaks, rows)


def draw_figure(
    studied: compose.Studied, number: int, filters: int, care: Care, report: ReportPhase, path: Path
) -> bool:
    """Draw one of the paper's Figs. 4, 5 and 6; False where the network has nothing to show."""
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
