"""Which networks stand behind the paper's published values, and which values a sweep's jobs would give."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

from schemas.categories import CATEGORIES
from schemas.job import JobSpec
from schemas.paper import ALL, AVERAGE, Published, published_values


class PaperNetwork(NamedTuple):
    categories: frozenset[str]
    """Ids."""
    loss: str
    backbone: str
    variant: str


class Filled(NamedTuple):
    table: int
    values: int
    of: int
    """Values that the paper printed in this table."""


def network_of(spec: JobSpec) -> PaperNetwork:
    return PaperNetwork(frozenset(spec.data.categories), spec.loss, spec.model.backbone, spec.model.variant)


def networks_behind(value: Published) -> Iterator[PaperNetwork]:
    """One; behind an average, one per category of the data set."""
    members = [c for c in CATEGORIES if c.dataset == value.dataset]
    if value.category == ALL:
        groups = [frozenset(c.id for c in members)]
    else:
        groups = [frozenset({c.id}) for c in members if value.category in (AVERAGE, c.name)]
    for group in groups:
        yield PaperNetwork(group, value.loss, value.backbone, value.variant)


def filled_tables(jobs: Collection[JobSpec]) -> tuple[Filled, ...]:
    """Tables of which the jobs give at least one value."""
    had = {network_of(job) for job in jobs}
    counts: dict[int, list[bool]] = {}
    for value in published_values():
        counts.setdefault(value.table, []).append(all(network in had for network in networks_behind(value)))
    return tuple(Filled(table, sum(values), len(values)) for table, values in sorted(counts.items()) if any(values))
