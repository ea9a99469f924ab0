"""Compares two sets of jobs, pair by pair: which fields differ between them, and by how much each metric does. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.planning.planner import INTERPRETABLE_ONLY
from orchestrator.report.frames import METRICS, text_of, varying
from orchestrator.report.significance import MIN_PAIRS, mean_interval, two_sided_p
from schemas.errors import SpecError
from schemas.sweep import AXIS_ALIASES

if TYPE_CHECKING:
    import pandas as pd

HIGHER_IS_BETTER = frozenset({
    "test_accuracy", "train_accuracy", "part_interpretability", "tracking_share", "held_out_tracking_share",
    "consistency", "near_share", "stability",
})  # fmt: skip
LOWER_IS_BETTER = frozenset({"location_instability", "held_out_instability"})


@dataclass(frozen=True)
class Difference:
    """A metric of the second set of jobs minus that of the first, over the pairs that have both."""

    metric: str
    pairs: int
    first: float
    """Mean of the first set."""
    second: float
    """Mean of the second set."""
    mean: float
    """Mean of second - first."""
    interval: tuple[float, float] | None
    """95 % bootstrap interval of that mean over pairs; None with fewer than `MIN_PAIRS` pairs."""
    p: float | None
    """P-value of the two-sided Wilcoxon signed-rank test; None with fewer than `MIN_PAIRS` pairs that differ."""
    better: int | None
    """Number of pairs in which the second is better; None for a metric that is neither good nor bad."""


@dataclass(frozen=True)
class PairedComparison:
    """Two sets of jobs, paired by the fields that they share."""

    between: dict[str, tuple[str, str]]
    """Fields that differ between the sets, with the values in each."""
    paired_by: tuple[str, ...]
    """Fields in which the pairs differ from each other."""
    pairs: pd.DataFrame
    """A row per pair: the fields of `paired_by`, and each metric of both as NAME_first and NAME_second."""
    alone: tuple[int, int]
    """Number of jobs of each set without a partner."""
    differences: tuple[Difference, ...]


def compare_paired(first: pd.DataFrame, second: pd.DataFrame, metrics: Sequence[str]) -> PairedComparison:
    """Pair the jobs of two sets, and compare their metrics.

    A field with no value in common tells the sets apart; every other field that varies must be equal in a pair.

    Args:
        first: succeeded jobs, as of `frames.frame_of`.
        second: the same.
        metrics: columns to compare.

    Raises:
        SpecError: a set is empty, several jobs of a set would have the same partner, or no job has one.
    """
    import pandas as pd

    if first.empty or second.empty:
        raise SpecError(f"The {'first' if first.empty else 'second'} of the two has no job that has succeeded.")
    both = pd.concat([first, second], ignore_index=True)
    fields = varying(both, contents=True)
    texts = both[fields].map(text_of)
    a, b = texts.iloc[: len(first)], texts.iloc[len(first) :]
    apart = [name for name in fields if not set(a[name]) & set(b[name])]
    between = {name: (_values(a[name]), _values(b[name])) for name in _stated(apart)}
    by = _deciding(texts, [name for name in varying(both) if name not in apart])
    for which, rows in (("first", a), ("second", b)):
        if len(rows) > 1 and (not by or rows.duplicated(by).any()):
            only = ", ".join(varying(both.loc[rows.index], contents=True)) or "nothing"
            raise SpecError(
                f"Several jobs of the {which} have the same partner, because they differ only in {only}. Narrow it: "
                "SWEEP@FIELD=VALUE,FIELD=VALUE."
            )
    columns = [name for name in METRICS if name in metrics]
    left = pd.concat([a[by], both.loc[a.index, columns]], axis=1).assign(_pair=0)
    right = pd.concat([b[by], both.loc[b.index, columns]], axis=1).assign(_pair=0)
    pairs = left.merge(right, on=[*by, "_pair"], suffixes=("_first", "_second")).drop(columns="_pair")
    if pairs.empty:
        raise SpecError(f"No job of the first has a partner in the second with equal {', '.join(by)}.")
    alone = (len(a) - len(pairs), len(b) - len(pairs))
    differences = tuple(found for name in metrics if (found := _difference(name, pairs)) is not None)
    return PairedComparison(between, tuple(by), pairs, alone, differences)


def _stated(apart: Sequence[str]) -> list[str]:
    """Put well-known fields first; beside the variant leave out those that only interpretable networks have."""
    variant = AXIS_ALIASES["variant"]
    own = [name for name in apart if variant not in apart or not name.startswith(INTERPRETABLE_ONLY)]
    return sorted(own, key=lambda name: name not in AXIS_ALIASES.values())


def _deciding(texts: pd.DataFrame, fields: Sequence[str]) -> list[str]:
    """Return the fields without those that follow from the others, such as the filter loss from the variant."""
    found: list[str] = []
    for name in sorted(fields, key=lambda name: name not in AXIS_ALIASES.values()):
        if texts[[*found, name]].drop_duplicates().shape[0] > (texts[found].drop_duplicates().shape[0] if found else 1):
            found.append(name)
    return found


def _values(column: pd.Series[str]) -> str:
    return " or ".join(value or "none" for value in dict.fromkeys(column))


def _difference(metric: str, pairs: pd.DataFrame) -> Difference | None:
    known = pairs[[f"{metric}_first", f"{metric}_second"]].dropna()
    if known.empty:
        return None
    first, second = known.iloc[:, 0], known.iloc[:, 1]
    change = second - first
    sign = 1 if metric in HIGHER_IS_BETTER else -1 if metric in LOWER_IS_BETTER else 0
    return Difference(
        metric=metric,
        pairs=len(known),
        first=float(first.mean()),
        second=float(second.mean()),
        mean=float(change.mean()),
        interval=mean_interval(list(change)) if len(known) >= MIN_PAIRS else None,
        p=two_sided_p(list(change)),
        better=int((sign * change > 0).sum()) if sign else None,
    )
