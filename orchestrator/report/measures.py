"""What a location instability is worth: how much of it follows the part, and what peaks that look at nothing reach."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from schemas.results import JobMetrics

MIN_VALUES = 5
"""Smallest number of jobs whose spread gives an interval."""
RESAMPLES = 9999
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Measures:
    """Means over jobs, or over the means of categories; None where no job measured a value (older results)."""

    instability: float | None = None
    shuffled: float | None = None
    tracking: float | None = None
    """1 - instability / shuffled, of each job."""
    random: float | None = None
    centre: float | None = None
    best_fixed: float | None = None
    held_out: float | None = None
    held_out_tracking: float | None = None
    consistency: float | None = None
    fixed_consistency: float | None = None
    near: float | None = None
    fixed_near: float | None = None
    stability: float | None = None
    tracking_interval: tuple[float, float] | None = None
    """95 % bootstrap interval: over images for one job, over categories and seeds for several; None for too few."""
    consistency_interval: tuple[float, float] | None = None
    """The same for consistency."""
    is_held_out_apart: bool = False
    """Whether any job was measured on images that it was trained on."""
    tracking_by_job: tuple[float, ...] = ()
    consistency_by_job: tuple[float, ...] = ()


UNMEASURED = Measures()
"""Measures of no job."""
_FIELDS = {
    "instability": "location_instability",
    "shuffled": "shuffled_instability",
    "tracking": "tracking_share",
    "random": "random_instability",
    "centre": "centre_instability",
    "best_fixed": "best_fixed_instability",
    "held_out": "held_out_instability",
    "held_out_tracking": "held_out_tracking_share",
    "consistency": "consistency",
    "fixed_consistency": "fixed_consistency",
    "near": "near_share",
    "fixed_near": "fixed_near_share",
    "stability": "stability",
}
"""Field of Measures -> field of JobMetrics."""


def of_jobs(jobs: Sequence[JobMetrics]) -> Measures:
    """Return the means over the jobs of one category and variant, which differ in their seeds."""
    tracking, consistency = (
        [value for job in jobs if (value := getattr(job, name)) is not None]
        for name in ("tracking_share", "consistency")
    )
    one = jobs[0].intervals if len(jobs) == 1 else {}
    means: dict[str, Any] = {name: mean_of(getattr(job, field) for job in jobs) for name, field in _FIELDS.items()}
    return Measures(
        **means,
        tracking_interval=one.get("tracking_share") or interval_of([tracking]),
        consistency_interval=one.get("consistency") or interval_of([consistency]),
        is_held_out_apart=any(0 < job.held_out_images < job.measured_images for job in jobs),
        tracking_by_job=tuple(tracking),
        consistency_by_job=tuple(consistency),
    )


def over_categories(found: Sequence[Measures]) -> Measures:
    """Return the means over categories."""
    if len(found) == 1:
        return found[0]
    means: dict[str, Any] = {name: mean_of(getattr(each, name) for each in found) for name in _FIELDS}
    return Measures(
        **means,
        tracking_interval=interval_of([each.tracking_by_job for each in found]),
        consistency_interval=interval_of([each.consistency_by_job for each in found]),
        is_held_out_apart=any(each.is_held_out_apart for each in found),
    )


def mean_of(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that are there; None if none is."""
    there = [value for value in values if value is not None]
    return fmean(there) if there else None


def interval_of(groups: Sequence[Sequence[float]]) -> tuple[float, float] | None:
    """Return the percentile interval of the mean over groups of their means, if both are drawn anew.

    Groups are categories, members the seeds of one. The seed is fixed, so that equal results give equal reports.

    Returns:
        The interval; None with fewer than `MIN_VALUES` values.
    """
    import numpy as np

    groups = [group for group in groups if group]
    if sum(map(len, groups)) < MIN_VALUES:
        return None
    rng, shape = np.random.default_rng(0), (RESAMPLES, len(groups))
    means_GRG = np.stack(
        [np.asarray(group)[rng.integers(len(group), size=(*shape, len(group)))].mean(axis=2) for group in groups]
    )
    chosen_RG = rng.integers(len(groups), size=shape)
    mean_R = np.take_along_axis(means_GRG, chosen_RG[None], axis=0)[0].mean(axis=1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(mean_R, [tail, 1 - tail])
    return float(low), float(high)


# -- in words -----------------------------------------------------------------------------------------------------


def headline(ordinary: Measures, interpretable: Measures) -> str:
    """Say by how much interpretable networks are below ordinary ones, and how much of it follows the part.

    Returns:
        Sentences with full stops; empty if location instability is missing.
    """
    if not ordinary.instability or interpretable.instability is None:
        return ""
    change = interpretable.instability / ordinary.instability - 1
    above = "above" if round(change, 2) > 0 else "below"
    head = (
        f"Interpretable is {abs(change):.0%} {above} ordinary "
        f"({ordinary.instability:.4f} to {interpretable.instability:.4f})."
    )
    return " ".join([head, *follows_sentences(ordinary, interpretable)])


def follows_sentences(ordinary: Measures, interpretable: Measures) -> list[str]:
    """Say how much of the difference follows the part: both tracking shares, and the held-out values if they differ."""
    if ordinary.tracking is None or interpretable.tracking is None:
        return ["How much of it follows the part was not measured."]
    shares = (
        f"Tracking share: {share_text(ordinary.tracking, ordinary.tracking_interval)} ordinary, "
        f"{share_text(interpretable.tracking, interpretable.tracking_interval)} interpretable "
        "(0 for peaks that ignore the image)."
    )
    return [shares, *_part_of_drop(ordinary, interpretable), *_held_out(ordinary, interpretable)]


def _part_of_drop(ordinary: Measures, interpretable: Measures) -> list[str]:
    """Split the drop of real = shuffled - (shuffled - real) into peaks that scatter less and peaks that follow more."""
    part = part_that_follows(ordinary, interpretable)
    if part is None:
        return []
    if round(part, 2) <= 0:
        return ["Nothing of the drop follows the part: the peaks only move less."]
    if round(part, 2) >= 1:
        return ["All of the drop follows the part."]
    return [f"{part:.0%} of the drop follows the part; the rest is peaks that move less."]


def part_that_follows(ordinary: Measures, interpretable: Measures) -> float | None:
    """Return the share of the drop in instability that is due to tracking; None if there is no drop.

    It is 1 - (drop in shuffled instability) / (drop in instability): what shuffled peaks gain too is no tracking.
    """
    if ordinary.instability is None or interpretable.instability is None:
        return None
    drop = ordinary.instability - interpretable.instability
    if ordinary.shuffled is None or interpretable.shuffled is None or round(drop, 4) <= 0:
        return None
    return 1 - (ordinary.shuffled - interpretable.shuffled) / drop


def _held_out(ordinary: Measures, interpretable: Measures) -> list[str]:
    before, after = ordinary.held_out, interpretable.held_out
    if not (ordinary.is_held_out_apart or interpretable.is_held_out_apart) or not before or after is None:
        return []
    return [f"On held-out images alone: {before:.4f} to {after:.4f} ({after / before - 1:+z.0%})."]


def share_text(value: float | None, interval: tuple[float, float] | None = None) -> str:
    """Write a share in per cent, with its interval; a dash without a value."""
    if value is None:
        return "-"
    bounds = f" [{_percent(interval[0])}, {_percent(interval[1])}]" if interval else ""
    return f"{_percent(value)}%{bounds}"


def _percent(value: float) -> str:
    return f"{round(100 * value) + 0}"


# -- as a table ---------------------------------------------------------------------------------------------------

HEADINGS = (
    "instability", "shuffled", "tracking", "random", "centre", "best fixed", "held out", "consistent", "fixed",
    "near", "fixed", "stable",
)  # fmt: skip
"""Headings of `cells`. `fixed` belongs to the column before it."""
NARROW = ("random", "near", "fixed", "stable", "held out", "consistent", "centre")
"""Headings of the columns that a narrow terminal leaves out, the first ones first."""
WORTH = tuple(_FIELDS)[1:]
"""Fields of Measures beside the value of a report's CSV and JSON."""
LEGEND = (
    "shuffled: peaks dealt out at random among the same images; tracking: 1 - instability / shuffled; random, centre, "
    "best fixed: peaks at random places, at the centre, at the best fixed place; held out: instability on images not "
    "trained on; consistent: filters near one landmark in 80 % of images; near: mean share of images; fixed: the same "
    "for the best fixed place; stable: images in which noise changes no landmark near the peak. "
    "In brackets: 95 % bootstrap intervals, over images for one network, over categories and seeds for means."
)


def cells(found: Measures) -> list[str]:
    """Write measures, in the order of `HEADINGS`."""
    return [
        _number(found.instability),
        _number(found.shuffled),
        share_text(found.tracking, found.tracking_interval),
        *(_number(value) for value in (found.random, found.centre, found.best_fixed, found.held_out)),
        share_text(found.consistency, found.consistency_interval),
        *(share_text(value) for value in (found.fixed_consistency, found.near, found.fixed_near, found.stability)),
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
