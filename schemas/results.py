"""What a finished job hands back: numbers, the checkpoint it left, or why it stopped."""

from __future__ import annotations

import hashlib
import re
from typing import Literal

from pydantic import Field

from schemas.base import Stored
from schemas.lifecycle import StopReason

TOLD_TO_STOP = frozenset({StopReason.INTERRUPTED, StopReason.CANCELLED_BY_USER, StopReason.SWEEP_CANCELLED})
"""Reasons of stops that are nobody's failure."""


class CheckpointPointer(Stored):
    """Which file holds a job's newest whole checkpoint."""

    path: str
    epoch: int
    """Epochs that are done."""
    step: int = 0
    """Batches of the following epoch that are done too."""
    sha256: str


class JobMetrics(Stored):
    """Accuracy as fractions; location instability without unit, lower is steadier (Sec. 5.2.2); part interpretability
    from 0 to 1, higher is clearer (Sec. 5.2.1)."""

    test_accuracy: float
    train_accuracy: float
    location_instability: float | None = None
    """Mean over the measured layer's filters; None where the job has no landmarks to measure."""
    landmark_instability: dict[str, float] = Field(default_factory=dict)
    measured_layer: str = ""
    measured_split: Literal["test", "all"] = "test"
    measured_images: int = 0
    filters: int = 0
    filters_left_out: int = 0
    """Filters that never fire, or that have fewer than two usable images."""
    assigned_filters: dict[str, int] = Field(default_factory=dict)
    """Networks of several categories: how many filters stand for each, those that it activates most (Sec. 3.1); as the
    filter loss assigned them in training, or where there is none on the held-out images."""
    images: Literal["generated", "photographs"] = "generated"
    peak_spread: float | None = None
    """How far a filter's peaks scatter over the image, as a share of its diagonal; mean over filters. Near 0 the
    filters stand still whatever the image shows, and a low instability says nothing."""
    part_interpretability: float | None = None
    """Mean over the measured layer's filters; None where the images have no part masks."""
    part_association: dict[str, float] = Field(default_factory=dict)
    """For each part, in what share of the images that show it a filter's region is that part; mean over filters."""
    part_images: dict[str, int] = Field(default_factory=dict)
    """Measured images that show each part."""
    part_filters_left_out: int = 0
    """Filters that never fire, or whose category's images show no part."""
    part_valid_units: float | None = None
    """Valid units of a filter per measured image. Below 1 it is about the highest part interpretability there can be,
    so only networks with maps of one size can be compared."""
    part_regions: Literal["round", "bilinear"] = "round"
    weights: str = "random"
    """Where the network started: the weights' source, and for an upstream job what images it saw."""
    skipped_images: int = 0


class Failure(Stored):
    kind: str
    """Class name of the exception."""
    message: str
    traceback: str = ""

    @property
    def fingerprint(self) -> str:
        """Equal for failures of one cause: the kind and the code lines of the traceback, numbers taken out."""
        frames = re.findall(r'File "[^"]*?([^"/]+)", line \d+, in (\S+)', self.traceback)
        text = self.kind + "".join(f"|{file}:{function}" for file, function in frames)
        return hashlib.sha256(text.encode()).hexdigest()[:8]


class JobResult(Stored):
    job_key: str
    attempt: int
    stop_reason: StopReason
    epochs_done: int = 0
    seconds: float = 0.0
    metrics: JobMetrics | None = None
    checkpoint: CheckpointPointer | None = None
    failure: Failure | None = None
    micro_batches: int = 1
    """Into how many parts the attempt cut each batch for want of memory. The gradient is that of the whole batch, to
    rounding, so the result is no longer the same bit by bit as without."""
    problems: tuple[str, ...] = ()
    """What the attempt met and overcame, such as a damaged checkpoint."""

    @property
    def has_failed(self) -> bool:
        """Something went wrong, other than that the job was told to stop."""
        return self.failure is not None and self.stop_reason not in TOLD_TO_STOP
