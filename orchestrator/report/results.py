"""Indexes a sweep's jobs by their place in the tables: of the paper, or of an imported data set."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from orchestrator.report.caveats import FinishedJob
from orchestrator.report.model import Block, Place
from orchestrator.report.summary import by_setting
from schemas.categories import CATEGORIES, is_imported
from schemas.model_spec import TABLE
from schemas.paper import ALL
from schemas.results import JobMetrics


@dataclass(frozen=True)
class PlacedJob:
    """A job at its place in the paper's tables."""

    place: Place
    backbone: str
    variant: str
    fields: dict[str, Any]
    metrics: JobMetrics | None
    covered: int
    """Number of categories of its network."""
    why: str
    """Reason, if it has no value."""


_JobsByCategory = dict[tuple[str, str], list[PlacedJob]]
"""Jobs by category and variant, several if seeds differ."""


class Results:
    """A sweep's jobs, indexed by their place in the paper's tables."""

    def __init__(self, jobs: Iterable[PlacedJob]) -> None:
        self._settings: dict[tuple[str, str, str, str], dict[str, _JobsByCategory]] = defaultdict(dict)
        panels: dict[tuple[str, str, str], list[PlacedJob]] = defaultdict(list)
        for job in jobs:
            panels[job.place[:3]].append(job)
        for panel, members in panels.items():
            for setting, job in by_setting(members):
                members_of = self._settings[*panel, job.backbone].setdefault(setting, defaultdict(list))
                members_of[job.place.category, job.variant].append(job)

    @property
    def backbones(self) -> list[str]:
        """All backbones of the table, then those of other libraries that the sweep has."""
        return list(dict.fromkeys((*TABLE, *(backbone for *_, backbone in self._settings))))

    def settings(self, places: Collection[Place], backbone: str) -> list[str]:
        """Settings of a backbone's jobs at these places; one empty setting if it has no job there."""
        found = [s for panel in panels_of(places) for s in self._settings.get((*panel, backbone), {})]
        return list(dict.fromkeys(found)) or [""]

    def at(self, place: Place, backbone: str, setting: str) -> _JobsByCategory:
        """Jobs of the setting. A data set that has only one setting provides its jobs for every setting."""
        settings = self._settings.get((*place[:3], backbone), {})
        return settings.get(setting) or (next(iter(settings.values())) if len(settings) == 1 else {})

    def imported_panels(self) -> dict[tuple[str, str, str], list[str]]:
        """Task, data set and loss of the networks of imported data sets, with the names of their categories."""
        found: dict[tuple[str, str, str], dict[str, None]] = defaultdict(dict)
        for (task, dataset, loss, _), settings in self._settings.items():
            if is_imported(dataset):
                named = (category for jobs in settings.values() for category, _ in jobs)
                found[task, dataset, loss] |= dict.fromkeys(named)
        return {panel: list(names) for panel, names in found.items()}

    def names(self, place: Place) -> list[str]:
        """Names of all categories of a place's data set; of an imported one, of the sweep's networks."""
        return names_of(place.dataset) or [n for n in self.imported_panels().get(place[:3], ()) if n != ALL]

    def jobs_of(self, blocks: Iterable[Block]) -> list[FinishedJob]:
        """Finished jobs of the blocks' lines that have both variants."""
        return [
            FinishedJob(job.fields, job.metrics)
            for block in blocks
            for line in block.paired
            for jobs in self.at(line.place, block.backbone, block.setting).values()
            for job in jobs
            if job.metrics and job.place == line.place
        ]


def panels_of(places: Iterable[Place]) -> list[tuple[str, str, str]]:
    """Return task, data set and loss of some places, without repetition."""
    return list(dict.fromkeys(place[:3] for place in places))


def names_of(dataset: str) -> list[str]:
    """Return the names of a data set's categories in the paper; empty for an imported one."""
    return [category.name for category in CATEGORIES if category.dataset == dataset]
