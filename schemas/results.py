"""What a job returns: metrics, its final checkpoint, or why it stopped."""

from __future__ import annotations

import hashlib
import re
from typing import Literal

from pydantic import Field

from schemas.base import Stored
from schemas.lifecycle import StopReason

STOP_REQUESTED = frozenset({StopReason.INTERRUPTED, StopReason.CANCELLED_BY_USER, StopReason.SWEEP_CANCELLED})
"""Reasons for a stop that a user requested, which is not a failure."""

MLFLOW_DECIMALS = 4
"""Decimals of results that are logged as MLflow metrics, whose page shows every digit. `metrics.json` has all of them,
and so has the result in the run's tags."""


class CheckpointPointer(Stored):
    """Location and digest of a job's newest complete checkpoint."""

    path: str
    """Path of the checkpoint file; that of a final one is a URI if its run is behind a server."""
    epoch: int
    """Number of finished epochs."""
    step: int = 0
    """Number of finished batches of the next epoch."""
    sha256: str
    """SHA-256 of the file."""


class JobMetrics(Stored):
    """Metrics of a trained network.

    Accuracies are fractions. Location instability has no unit, and lower is more stable (Sec. 5.2.2). Part
    interpretability is between 0 and 1, and higher is better (Sec. 5.2.1).
    """

    test_accuracy: float
    """Accuracy on held-out images (Table 7)."""
    train_accuracy: float
    """Accuracy on training images."""
    chance_accuracy: float | None = None
    """Accuracy of the best constant answer on the held-out images: the share of the most frequent label."""
    location_instability: float | None = None
    """Mean location instability over the measured layer's filters; None if the images have no landmarks."""
    landmark_instability: dict[str, float] = Field(default_factory=dict)
    """Landmark -> mean location instability over filters."""
    measured_layer: str = ""
    """Name of the layer whose filters are measured."""
    measured_split: Literal["test", "all"] = "test"
    """Images on which filters are measured."""
    measured_images: int = 0
    """Number of images on which filters are measured."""
    filters: int = 0
    """Number of filters of the measured layer."""
    filters_left_out: int = 0
    """Number of filters without location instability: they never fire, or have too few usable images."""
    assigned_filters: dict[str, int] = Field(default_factory=dict)
    """Multi-category networks: category -> number of filters that it activates most (Sec. 3.1). As assigned by the
    filter loss in training, or without a filter loss on the held-out images."""
    images: Literal["generated", "photographs"] = "generated"
    """Source of the images."""
    peak_spread: float | None = None
    """Spread of a filter's peaks over the image, as a fraction of its diagonal; mean over filters. Near 0 the peaks do
    not move with the image's content, and a low location instability means nothing."""
    shuffled_instability: float | None = None
    """Location instability if each filter's peaks are dealt out at random among its own images; mean over filters."""
    tracking_share: float | None = None
    """1 - location instability / shuffled instability: how much of a low instability is due to following the image. 0
    for peaks that ignore it, 1 for peaks at a constant distance from the landmarks."""
    random_instability: float | None = None
    """Location instability of peaks at random places of the map, on the same images."""
    centre_instability: float | None = None
    """Location instability of a peak that never leaves the image's centre, on the same images."""
    best_fixed_instability: float | None = None
    """Location instability of a peak that never leaves the place of the map where it is lowest; each filter has its own
    place."""
    held_out_instability: float | None = None
    """Location instability on those measured images that the job was not trained on; equal to `location_instability` if
    these are all."""
    held_out_tracking_share: float | None = None
    """Tracking share on these images."""
    held_out_images: int = 0
    """Number of these images."""
    consistency: float | None = None
    """Fraction of filters whose peak is near one and the same landmark in at least 80 % of their images."""
    fixed_consistency: float | None = None
    """The same for peaks that never leave the place of the map where it is highest, each filter its own."""
    near_share: float | None = None
    """Share of a filter's images in which its most frequent landmark is near its peak; mean over filters."""
    fixed_near_share: float | None = None
    """The same for peaks that never leave their best place."""
    stability: float | None = None
    """Share of images in which noise does not change which landmarks are near a filter's peak; mean over filters."""
    stability_images: int = 0
    """Number of images that were shown with noise."""
    intervals: dict[str, tuple[float, float]] = Field(default_factory=dict)
    """95 % bootstrap intervals over images of `location_instability`, `tracking_share` and `consistency`."""
    part_interpretability: float | None = None
    """Mean part interpretability over the measured layer's filters; None if the images have no part masks."""
    part_association: dict[str, float] = Field(default_factory=dict)
    """Part -> fraction of the images showing it in which a filter's region matches it; mean over filters."""
    part_images: dict[str, int] = Field(default_factory=dict)
    """Part -> number of measured images that show it."""
    part_filters_left_out: int = 0
    """Number of filters without part interpretability: they never fire, or no image of their category shows a part."""
    part_valid_units: float | None = None
    """Number of valid units of a filter per measured image. Below 1 it is about the upper bound of part
    interpretability, so compare networks with maps of equal size only."""
    part_regions: Literal["round", "bilinear"] = "round"
    """How valid units became regions of the image."""
    weights: str = "random"
    """Source of the starting weights; for an upstream job, also the images that it was trained on."""
    skipped_images: int = 0
    """Number of unreadable images that were skipped."""

    @property
    def accuracy_text(self) -> str:
        """Test accuracy with that of the best constant answer beside it, such as `0.940 (chance 0.500)`."""
        chance = "" if self.chance_accuracy is None else f" (chance {self.chance_accuracy:.3f})"
        return f"{self.test_accuracy:.3f}{chance}"


class Failure(Stored):
    """The exception that ended an attempt."""

    kind: str
    """Class name of the exception."""
    message: str
    """Message of the exception."""
    traceback: str = ""
    """Formatted traceback."""

    @property
    def fingerprint(self) -> str:
        """Hash of the exception's class and the functions in its traceback; equal for failures with the same cause."""
        frames = re.findall(r'File "[^"]*?([^"/]+)", line \d+, in (\S+)', self.traceback)
        text = self.kind + "".join(f"|{file}:{function}" for file, function in frames)
        return hashlib.sha256(text.encode()).hexdigest()[:8]


class JobResult(Stored):
    """Outcome of one attempt, as the worker returns it to the driver."""

    job_key: str
    """Key of the job."""
    attempt: int
    """Number of the attempt, counted from 1."""
    stop_reason: StopReason
    """Why the attempt stopped."""
    epochs_done: int = 0
    """Number of finished epochs."""
    seconds: float = 0.0
    """Duration of the attempt, seconds."""
    metrics: JobMetrics | None = None
    """Metrics; None unless the job finished."""
    checkpoint: CheckpointPointer | None = None
    """Newest checkpoint; None if the attempt saved nothing."""
    failure: Failure | None = None
    """The exception that ended the attempt, if any."""
    micro_batches: int = 1
    """Number of micro-batches per batch. Above 1 the accumulated gradient equals that of the whole batch up to
    rounding, so the result is not bit-identical to that of a single batch."""
    in_pack: bool = False
    """Whether a step of this attempt, or of one that it continues, was computed together with other jobs, which changes
    the order of sums."""
    device_failed: bool = False
    """Whether its GPU computes no more for its process, which then can run no other job."""
    jobs_at_once: float = 1.0
    """Number of jobs that ran in its process meanwhile, itself included, as a mean over its duration."""
    problems: tuple[str, ...] = ()
    """Problems that the attempt recovered from, such as a damaged checkpoint."""
    left_on: str = ""
    """Name of the machine whose disk alone has the newest checkpoint; empty if others can read it too."""

    @property
    def has_failed(self) -> bool:
        """Whether an exception ended the attempt without a user's request to stop."""
        return self.failure is not None and self.stop_reason not in STOP_REQUESTED
