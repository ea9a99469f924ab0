"""Decides which networks each published value of the paper needs, and which values a sweep's jobs provide."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from schemas.categories import CATEGORIES
from schemas.job import JobSpec
from schemas.paper import ALL, AVERAGE, Published, published_values


class PaperNetwork(NamedTuple):
    """A network of the paper, regardless of seed and training settings."""

    categories: frozenset[str]
    """Category ids."""
    loss: str
    backbone: str
    variant: str


class TableCoverage(NamedTuple):
    """How much of one table a sweep provides."""

    table: int
    values: int
    """Number of values that the sweep's jobs provide."""
    of: int
    """Number of values that the paper printed in this table."""


def network_of(spec: JobSpec) -> PaperNetwork:
    """Return the network of the paper that a job trains."""
    return PaperNetwork(frozenset(spec.data.categories), spec.loss, spec.model.backbone, spec.model.variant)


def networks_behind(value: Published) -> Iterator[PaperNetwork]:
    """Yield the networks that a published value needs: one, or for an average one per category of the data set."""
    members = [c for c in CATEGORIES if c.dataset == value.dataset]
    if value.category == ALL:
        groups = [frozenset(c.id for c in members)]
    else:
        groups = [frozenset({c.id}) for c in members if value.category in (AVERAGE, c.name)]
    for group in groups:
        yield PaperNetwork(group, value.loss, value.backbone, value.variant)


def table_coverage(
    jobs: Collection[JobSpec], unmeasurable: Mapping[str, Collection[str]] | None = None
) -> tuple[TableCoverage, ...]:
    """Return the tables for which the jobs provide at least one value.

    Args:
        jobs: the measured jobs of a sweep, without pre-training.
        unmeasurable: metric -> ids of the categories whose data lack what it needs.
    """
    provided = {network_of(job) for job in jobs}
    counts: dict[int, list[bool]] = {}
    for value in published_values():
        lacking = frozenset((unmeasurable or {}).get(value.metric, ()))
        needed = list(networks_behind(value))
        given = all(network in provided and not network.categories & lacking for network in needed)
        counts.setdefault(value.table, []).append(given)
    return tuple(
        TableCoverage(table, sum(values), len(values)) for table, values in sorted(counts.items()) if any(values)
    )
