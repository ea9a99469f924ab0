"""Tests whether interpretable networks differ from ordinary ones, over categories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from orchestrator.report.measures import Measures

Pair = tuple[float, float]
"""Ordinary and interpretable value of one category."""

MIN_PAIRS = 5
"""Smallest number of pairs that is tested. With four, a one-sided signed-rank test cannot fall below p = 1/16."""
RESAMPLES = 9999
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Comparison:
    """Interpretable against ordinary networks over categories."""

    pairs: int
    """Number of categories that have both."""
    better: int
    """Number of categories in which the interpretable network is better."""
    mean_change: float
    """Mean of interpretable / ordinary - 1."""
    interval: tuple[float, float] | None = None
    """95 % bootstrap interval of the mean change; None with fewer than `MIN_PAIRS` pairs."""
    p: float | None = None
    """P-value of the one-sided Wilcoxon signed-rank test after Holm's correction; None with fewer than `MIN_PAIRS`
    pairs that differ."""
    tests: int = 0
    """Number of tests in the correction."""
    accuracy: tuple[float, float] | None = None
    """Mean accuracy of the ordinary and the interpretable networks of the same categories, in per cent."""
    chance: float | None = None
    """Mean accuracy of the best constant answer on their test images, in per cent."""
    shares_weights: bool = False
    """Whether the categories start from the same weights, so that they are no independent samples of them."""
    measures: tuple[Measures, Measures] | None = None
    """What the location instability of both is worth, as means over the same categories; None for other measures."""


def compare_families(families: Sequence[Sequence[Pair]], lower_is_better: bool) -> list[Comparison | None]:
    """Compare each family of pairs, and correct the p-values for the number of families that are tested.

    Args:
        families: the pairs of each network; ordinary values must not be zero.
        lower_is_better: whether the alternative is that interpretable values are lower.

    Returns:
        One comparison per family, in their order; None for a family without pairs.
    """
    raw = {i: _p_value(pairs, lower_is_better) for i, pairs in enumerate(families)}
    tested = {i: p for i, p in raw.items() if p is not None}
    corrected = dict(zip(tested, holm(list(tested.values())), strict=True))
    return [
        _comparison(pairs, lower_is_better, corrected.get(i), len(tested)) if pairs else None
        for i, pairs in enumerate(families)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for multiple tests (Holm, Scand. J. Statist. 6, 1979).

    Returns:
        In the order given: the k-th smallest of m times m - k + 1, made monotone and at most 1.
    """
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
        interval=mean_interval(changes) if len(pairs) >= MIN_PAIRS else None,
        p=p,
        tests=tests,
    )


def _p_value(pairs: Sequence[Pair], lower_is_better: bool) -> float | None:
    """One-sided signed-rank test. Pairs without a difference are dropped (Wilcoxon, Biometrics Bulletin 1, 1945)."""
    from scipy.stats import wilcoxon

    differing = [(a, b) if lower_is_better else (b, a) for a, b in pairs if a != b]
    if len(differing) < MIN_PAIRS:
        return None
    return float(wilcoxon([a for a, _ in differing], [b for _, b in differing], alternative="greater").pvalue)


def two_sided_p(changes: Sequence[float]) -> float | None:
    """Return the p-value of the two-sided signed-rank test of paired differences; None with too few that differ."""
    from scipy.stats import wilcoxon

    differing = [change for change in changes if change]
    return None if len(differing) < MIN_PAIRS else float(wilcoxon(differing).pvalue)


def mean_interval(changes: Sequence[float]) -> tuple[float, float]:
    """Percentile bootstrap of the mean. The seed is fixed, so that equal results give equal reports."""
    import numpy as np
    from scipy.stats import bootstrap

    found = bootstrap(
        (np.asarray(changes),), np.mean, n_resamples=RESAMPLES, confidence_level=CONFIDENCE, method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    return float(found.low), float(found.high)
