"""How sure the difference between ordinary and interpretable networks is, over categories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

Pair = tuple[float, float]
"""Ordinary and interpretable value of one category."""

FEWEST = 5
"""Below this many pairs no one-sided signed-rank test can reach 0.05: the smallest p of four is 1/16."""
RESAMPLES = 9999
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Comparison:
    """Interpretable against ordinary over categories; change is relative to the ordinary network."""

    pairs: int
    better: int
    """Categories in which the interpretable network is the better one."""
    mean_change: float
    interval: tuple[float, float] | None = None
    """Bootstrap interval of the mean change; None with too few pairs."""
    p: float | None = None
    """One-sided Wilcoxon signed-rank test, after Holm's correction; None with too few pairs."""
    tests: int = 0
    """How many tests the correction is over."""


def compare_families(families: Sequence[Sequence[Pair]], lower_is_better: bool) -> list[Comparison | None]:
    """One comparison per backbone, corrected together; None where there is no pair."""
    raw = {i: _p_value(pairs, lower_is_better) for i, pairs in enumerate(families)}
    tested = {i: p for i, p in raw.items() if p is not None}
    corrected = dict(zip(tested, holm(list(tested.values())), strict=True))
    return [
        _comparison(pairs, lower_is_better, corrected.get(i), len(tested)) if pairs else None
        for i, pairs in enumerate(families)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: the k-th smallest of m times m - k + 1, never falling, at most 1."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, p_values[i] * (len(p_values) - rank)))
        corrected[i] = largest
    return corrected


def _comparison(pairs: Sequence[Pair], lower_is_better: bool, p: float | None, tests: int) -> Comparison:
    changes = [interpretable / ordinary - 1 for ordinary, interpretable in pairs]
    return Comparison(
        pairs=len(pairs),
        better=sum((b < a) if lower_is_better else (b > a) for a, b in pairs),
        mean_change=fmean(changes),
        interval=_interval(changes) if len(pairs) >= FEWEST else None,
        p=p,
        tests=tests,
    )


def _p_value(pairs: Sequence[Pair], lower_is_better: bool) -> float | None:
    """Pairs without a difference say nothing about its sign, so they do not count (Wilcoxon's own treatment)."""
    from scipy.stats import wilcoxon

    differing = [(a, b) if lower_is_better else (b, a) for a, b in pairs if a != b]
    if len(differing) < FEWEST:
        return None
    return float(wilcoxon([a for a, _ in differing], [b for _, b in differing], alternative="greater").pvalue)


def _interval(changes: Sequence[float]) -> tuple[float, float]:
    """Percentile bootstrap with a fixed seed: the same results give the same report."""
    import numpy as np
    from scipy.stats import bootstrap

    found = bootstrap(
        (np.asarray(changes),), np.mean, n_resamples=RESAMPLES, confidence_level=CONFIDENCE, method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    return float(found.low), float(found.high)
