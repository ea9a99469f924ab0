"""Which commands would fill the cells that a report lacks."""

from __future__ import annotations

import json
import shlex
from collections import defaultdict
from collections.abc import Sequence

from orchestrator.ledger.records import StoredPlan
from orchestrator.planning.diff import PlanStatus
from orchestrator.planning.layers import Tree, differences, flatten
from orchestrator.planning.planner import NoDisk, plan
from orchestrator.planning.request import SweepRequest, define
from orchestrator.report.coverage import PaperNetwork, network_of
from orchestrator.report.model import NOT_MEASURED, Missing
from orchestrator.report.summary import VARIANTS
from schemas.categories import CATEGORIES
from schemas.errors import SpecError
from schemas.grids import BACKBONES, GRIDS
from schemas.job import JobSpec
from schemas.paper import ALL
from schemas.sweep import SweepSpec

NAMED = 6
"""A message names so many categories; more are counted."""
_DISK_ONLY = ("data.digest", "weights.data.digest", "weights.sha256", "weights.label", "weights.data.label_names")


def incomplete(stored: StoredPlan, missing: Sequence[Missing]) -> SpecError:
    """What to raise for a report that lacks cells: which, and the commands that fill them."""
    tables = list(dict.fromkeys(cell.table for cell in missing))
    lacks = [f"Table {n} lacks {_describe([c for c in missing if c.table == n])}." for n in tables]
    number = f" --table {tables[0]}" if len(tables) == 1 else ""
    show = f"To show what there is: orch report {stored.name}{number} --partial"
    head = f"sweep {stored.name} does not fill the paper's tables."
    return SpecError("\n  ".join([head, *lacks, *advice(stored, missing), show]))


def advice(stored: StoredPlan, missing: Sequence[Missing]) -> list[str]:
    """The commands, for networks that were not reached, failed, or were never part of the sweep."""
    begun = {cell.why for cell in missing if cell.why}
    lines = []
    if begun - {NOT_MEASURED}:
        retry = " --failed" if begun & {PlanStatus.FAILED.value, PlanStatus.BLOCKED.value} else ""
        lines.append(f"Jobs of the sweep that are not done: orch resume {stored.name}{retry}")
    if NOT_MEASURED in begun:
        lines.append("Some jobs ended without this measure, for want of landmarks or part masks.")
    absent = {_network(cell) for cell in missing if not cell.why}
    return [*lines, *(_sweep_advice(stored, absent) if absent else [])]


def _describe(missing: Sequence[Missing]) -> str:
    """`12 networks (voc_part bird, horse: alexnet, vgg16)`: categories that lack the same networks together."""
    networks = {(cell.place, cell.backbone, cell.variant) for cell in missing}
    lacking: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for place, backbone in dict.fromkeys((cell.place, cell.backbone) for cell in missing):
        variants = [variant for variant in VARIANTS if (place, backbone, variant) in networks]
        what = backbone if len(variants) == len(VARIANTS) else f"{backbone} {variants[0]}"
        group = place.dataset if place.task == "single" else f"{place.dataset} ({place.loss})"
        lacking[group, what][place.category] = None
    alike: dict[tuple[str, tuple[str, ...]], list[str]] = defaultdict(list)
    for (group, what), categories in lacking.items():
        alike[group, tuple(categories)].append(what)
    listed = (f"{group} {_names(categories)}: {_names(whats)}" for (group, categories), whats in alike.items())
    return f"{len(networks)} networks ({'; '.join(listed)})"


def _names(names: Sequence[str]) -> str:
    if tuple(names) == (ALL,):
        return "all in one network"
    return ", ".join(names) if len(names) <= NAMED else f"{', '.join(names[:3])} and {len(names) - 3} more"


def _network(missing: Missing) -> PaperNetwork:
    place = missing.place
    members = (c.id for c in CATEGORIES if c.dataset == place.dataset and place.category in (ALL, c.name))
    return PaperNetwork(frozenset(members), place.loss, missing.backbone, missing.variant)


def _sweep_advice(stored: StoredPlan, absent: set[PaperNetwork]) -> list[str]:
    """The smallest built-in grid that has the cells, with the fields in which this sweep departs from it."""
    grids = {name: _jobs(stored, name) for name in GRIDS}
    had = {name: {network_of(job) for job in jobs} for name, jobs in grids.items()}
    offered = absent & set().union(*had.values())
    lines = []
    fitting = [name for name in grids if offered and offered <= had[name]]
    if fitting:
        grid = min(fitting, key=lambda name: len(grids[name]))
        lines.append(_grid_advice(stored, grid, grids[grid]))
    if absent - offered:
        lines.append(f"No built-in grid has {len(absent - offered)} of them: `include` them in a sweep file.")
    return lines


def _grid_advice(stored: StoredPlan, grid: str, jobs: Sequence[JobSpec]) -> str:
    name = f"{stored.name}-{grid}"[:80]
    sets = _departures(stored, jobs)
    command = _command(stored, grid, jobs, sets or {}, name)
    if sets is None:
        command += f" (its jobs differ among themselves: put its axes in a sweep file that begins `grid: {grid}`)"
    return f"To run what was never part of it (finished jobs are not repeated): {command}; then: orch report {name}"


def _command(stored: StoredPlan, grid: str, jobs: Sequence[JobSpec], sets: Tree, name: str) -> str:
    backbones = ",".join(dict.fromkeys(job.model.backbone for job in jobs))
    words = ["orch", "sweep", "--grid", grid, "--profile", stored.profile, "--backbone", backbones]
    for field, value in sets.items():
        words += ["--set", f"{field}={value if isinstance(value, str) else json.dumps(value)}"]
    words += ["--data-root", stored.data_root] if stored.data_root else []
    return shlex.join([*words, "--name", name])


def _jobs(stored: StoredPlan, grid: str) -> list[JobSpec]:
    request = SweepRequest(
        sweep=SweepSpec(grid=grid), name=stored.name, profile=stored.profile, data_root=stored.data_root,
        backbones=BACKBONES,
    )  # fmt: skip
    planned = plan(define(request), NoDisk())
    return [job for job in planned.jobs if job.key not in planned.upstream_keys]


def _departures(stored: StoredPlan, jobs: Sequence[JobSpec]) -> Tree | None:
    """Fields in which the sweep's jobs depart from the grid's, all in the same way; None where they vary."""
    expected = {network_of(job): job.model_dump(mode="json") for job in jobs}
    pairs = [
        (expected[network_of(spec)], spec.model_dump(mode="json"))
        for spec in stored.specs
        if spec.key not in stored.upstream_keys and network_of(spec) in expected
    ]
    changes = (name for usual, own in pairs for name, _, _ in differences(usual, own))
    names = dict.fromkeys(name for name in changes if name not in _DISK_ONLY)
    found: Tree = {}
    for name in names:
        values = [dict(flatten(own))[name] for _, own in pairs if name in dict(flatten(own))]
        if any(value != values[0] for value in values):
            return None
        if values:
            found[name] = values[0]
    return found
