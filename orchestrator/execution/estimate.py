"""Estimates when a sweep will be over, from jobs of the same kind only. Pure: the time is an argument."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import log
from statistics import fmean
from typing import Any, NamedTuple

from orchestrator.planning.setting_layers import lookup
from schemas.job import RECIPE_VERSION, JobSpec
from schemas.order import Progress

FINISHED_SPREAD = 0.25
"""Relative half-width of an estimate from one finished job. It shrinks with their number."""
PAST_SPREAD = 0.1
"""Least relative half-width of an estimate from jobs of earlier sweeps: the machine may be busier now."""
PROJECTED_SPREAD = (0.9, 1.5)
"""Factors on an estimate from the epochs of a running job. The time for measuring is not known yet."""
_WORK_FIELDS = (
    "data.images", "data.train_per_category", "model.width", "train.batch_size", "train.freeze_below",
)  # fmt: skip
"""Further fields of a spec that decide how long an epoch takes."""


class Kind(NamedTuple):
    """Jobs that take about as long as each other."""

    stage: str
    """`pre-training`, `ordinary` or `interpretable`."""
    backbone: str
    input_size: int
    categories: int
    epochs: int
    work: tuple[Any, ...] = ()
    """The values of `_WORK_FIELDS`."""
    recipe: int = RECIPE_VERSION
    """`RECIPE_VERSION` of the code that planned the job; other code takes another time."""


class Estimate(NamedTuple):
    """Seconds until a sweep is over."""

    low: float
    high: float
    unknown: int = 0
    """Number of jobs that are left out, because no job of their kind has run long enough."""


@dataclass(frozen=True)
class Pace:
    """When an attempt passed its epochs. One that continues from a checkpoint does not begin at epoch 0."""

    began: float
    first: tuple[float, int] | None = None
    """Time and number of the first epoch that was reported."""
    last: tuple[float, int] | None = None
    """Time and number of the epoch that was reported last, when it was reported first."""

    def after(self, progress: Progress | None, now: float) -> Pace:
        """Return the pace with one more report."""
        if progress is None or not progress.epochs or progress.phase != "training":
            return self
        seen = (now, progress.epoch)
        if self.first is None or self.last is None:
            return replace(self, first=seen, last=seen)
        return replace(self, last=seen) if progress.epoch > self.last[1] else self

    @property
    def epoch_seconds(self) -> float | None:
        """Mean seconds per epoch; None before a whole epoch was seen."""
        if self.first is None or self.last is None or self.last[1] == self.first[1]:
            return None
        return (self.last[0] - self.first[0]) / (self.last[1] - self.first[1])


@dataclass(frozen=True)
class Waiting:
    """A job that has to run yet."""

    key: str
    kind: Kind
    upstream: str | None = None
    """Key of the job whose end it needs."""


@dataclass(frozen=True)
class Running:
    """A job that runs."""

    key: str
    kind: Kind
    pace: Pace


Range = tuple[float, float]


@dataclass
class Finished:
    """Seconds of the jobs that ran from their start to their end, by kind."""

    seconds: dict[Kind, list[float]] = field(default_factory=lambda: defaultdict(list))
    _alike: dict[Kind, list[Kind]] = field(default_factory=lambda: defaultdict(list))
    """The kinds of `seconds` that differ only in their number of epochs, by one of them with 0 epochs."""
    _whole: dict[Kind, Range | None] = field(default_factory=dict)
    """What `whole_of` has returned since the last job was added."""

    def add(self, kind: Kind, seconds: float) -> None:
        """Add a job."""
        if kind not in self.seconds:
            self._alike[kind._replace(epochs=0)].append(kind)
        self.seconds[kind].append(seconds)
        self._whole.clear()

    def whole_of(self, kind: Kind) -> Range | None:
        """Return the least and the most seconds that a job of another sweep takes.

        Args:
            kind: Of the job.

        Returns:
            The range; None if no job of the kind has run, whatever its number of epochs.
        """
        if kind not in self._whole:
            self._whole[kind] = self._compute_whole(kind)
        return self._whole[kind]

    def _compute_whole(self, kind: Kind) -> Range | None:
        if kind in self.seconds:
            return _spread(self.seconds[kind], PAST_SPREAD)
        others = self._alike.get(kind._replace(epochs=0))
        if not others:
            return None
        nearest = min(others, key=lambda other: abs(log(other.epochs / kind.epochs)))
        mean, ratio = fmean(self.seconds[nearest]), kind.epochs / nearest.epochs
        return mean * min(1.0, ratio), mean * max(1.0, ratio)  # more epochs take longer to train, not to measure


def kind_of(spec: JobSpec, is_upstream: bool) -> Kind:
    """Return the kind of a job.

    Args:
        spec: The job.
        is_upstream: Whether other jobs of the sweep start from its weights.
    """
    return kind_in(spec.model_dump(mode="json"), is_upstream)


def kind_in(fields: Mapping[str, Any], is_upstream: bool) -> Kind:
    """Return the kind of a job, from the fields of its spec; otherwise as `kind_of`."""
    return Kind(
        "pre-training" if is_upstream else lookup(fields, "model.variant"),
        lookup(fields, "model.backbone"),
        lookup(fields, "model.input_size"),
        len(lookup(fields, "data.categories")),
        lookup(fields, "train.epochs"),
        tuple(lookup(fields, name) for name in _WORK_FIELDS),
        lookup(fields, "recipe"),
    )


def time_left(
    waiting: Sequence[Waiting], running: Sequence[Running], finished: Finished, slots: int, now: float,
    past: Finished | None = None, places: int = 1,
) -> Estimate | None:  # fmt: skip
    """Estimate the time until all jobs are done.

    Args:
        waiting: Jobs that have to run yet, in the order in which they will start.
        running: Jobs that run.
        finished: Durations of the sweep's finished jobs. For a kind of which there are some, nothing else counts.
        slots: Number of jobs that run at once.
        now: The time, in the seconds of the paces.
        past: Seconds that jobs of earlier sweeps took of their worker process.
        places: Number of jobs that one process runs at once.

    Returns:
        The estimate; None if nothing is known of any job that is left.
    """
    if not waiting and not running:
        return Estimate(0.0, 0.0)
    kinds = {*(job.kind for job in waiting), *(job.kind for job in running)}
    known = _known(kinds, running, finished, past or Finished(), places)
    rest = {job.key: _rest(job, known, now) for job in running}
    lengths = {job.key: known.get(job.kind) for job in waiting}
    unknown = sum(each is None for each in (*rest.values(), *lengths.values()))
    if unknown == len(rest) + len(lengths) or not slots:
        return None
    low, high = (_makespan(waiting, _bound(rest, end), _bound(lengths, end), slots) for end in (0, 1))
    return Estimate(low, high, unknown)


def _known(
    kinds: Iterable[Kind], running: Sequence[Running], finished: Finished, past: Finished, places: int
) -> dict[Kind, Range]:
    """Whole duration of each kind: from the sweep itself if it has finished one, then from earlier sweeps."""
    projected = {job.kind: whole for job in running if (whole := _projected(job)) is not None}
    found = {}
    for kind in kinds:
        if kind in finished.seconds:
            found[kind] = _spread(finished.seconds[kind])
        elif kind in projected and kind not in past.seconds:
            found[kind] = projected[kind]
        elif (whole := past.whole_of(kind)) is not None:
            found[kind] = whole[0] * places, whole[1] * places
    return found


def _spread(seconds: Sequence[float], least: float = 0.0) -> Range:
    mean, half = fmean(seconds), max(FINISHED_SPREAD / len(seconds), least)
    return mean * (1 - half), mean * (1 + half)


def _projected(job: Running) -> Range | None:
    """Whole duration of a running job, from its epochs."""
    each, first = job.pace.epoch_seconds, job.pace.first
    if each is None or first is None:
        return None
    whole = first[0] - job.pace.began + each * job.kind.epochs
    return whole * PROJECTED_SPREAD[0], whole * PROJECTED_SPREAD[1]


def _rest(job: Running, known: Mapping[Kind, Range], now: float) -> Range | None:
    """Seconds that a running job still takes: from its own epochs, otherwise from other jobs of its kind."""
    each, last = job.pace.epoch_seconds, job.pace.last
    if each is not None and last is not None:
        rest = each * (job.kind.epochs - last[1])
        passed = now - last[0]
        return max(0.0, rest * PROJECTED_SPREAD[0] - passed), max(0.0, rest * PROJECTED_SPREAD[1] - passed)
    if job.kind not in known:
        return None
    low, high = known[job.kind]
    passed = now - job.pace.began
    return max(0.0, low - passed), max(0.0, high - passed)


def _bound(ranges: Mapping[str, Range | None], end: int) -> dict[str, float]:
    return {key: found[end] if found else 0.0 for key, found in ranges.items()}


def _makespan(waiting: Sequence[Waiting], rest: Mapping[str, float], lengths: Mapping[str, float], slots: int) -> float:
    """Simulate the queue: each free slot takes the first job whose upstream job is done."""
    unfinished = {job.key for job in waiting} | set(rest)
    ready = [(place, job.key) for place, job in enumerate(waiting) if job.upstream not in unfinished]
    below: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for place, job in enumerate(waiting):
        if job.upstream in unfinished and job.upstream is not None:
            below[job.upstream].append((place, job.key))
    ends = [(seconds, key) for key, seconds in rest.items()]
    heapq.heapify(ends)
    now = 0.0
    while ready or ends:
        while ready and len(ends) < slots:
            _, key = heapq.heappop(ready)
            heapq.heappush(ends, (now + lengths[key], key))
        now, key = heapq.heappop(ends)
        for each in below.pop(key, ()):
            heapq.heappush(ready, each)
    return now
