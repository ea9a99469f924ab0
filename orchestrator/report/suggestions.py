"""Decides which commands provide the values that a report lacks."""

from __future__ import annotations

import json
import shlex
from collections import defaultdict
from collections.abc import Sequence

from orchestrator.ledger.records import StoredPlan
from orchestrator.planning.diff import PlanStatus
from orchestrator.planning.planner import NullResolver, plan
from orchestrator.planning.request import SweepRequest, define
from orchestrator.planning.setting_layers import Tree, differences, flatten
from orchestrator.report.coverage import PaperNetwork, network_of
from orchestrator.report.model import NOT_MEASURED, Missing
from orchestrator.report.summary import VARIANTS
from schemas.categories import CATEGORIES
from schemas.errors import SpecError
from schemas.grids import BACKBONES, GRIDS
from schemas.job import JobSpec
from schemas.paper import ALL
from schemas.sweep import SweepSpec

MAX_NAMES = 6
"""Largest number of categories that a message lists in full."""
_DISK_ONLY = ("data.digest", "weights.data.digest", "weights.sha256", "weights.label", "weights.data.label_names")


def incomplete_error(stored: StoredPlan, missing: Sequence[Missing], resume: str = "") -> SpecError:
    """Return the error for a report that lacks values: which networks are missing, and the commands that run them.

    Args:
        stored: the plan of the sweep.
        missing: the missing values, at least one.
        resume: command that continues the sweep, if it is not `orch resume` alone.
    """
    tables = list(dict.fromkeys(cell.table for cell in missing))
    lacks = [f"Table {n} lacks {_describe([c for c in missing if c.table == n])}." for n in tables]
    number = f" --table {tables[0]}" if len(tables) == 1 else ""
    show = f"To show the values it has: orch report {stored.name}{number}"
    head = f"Sweep {stored.name} does not have all values of the paper's tables."
    return SpecError("\n  ".join([head, *lacks, *suggest_commands(stored, missing, resume), show]))


def suggest_commands(stored: StoredPlan, missing: Sequence[Missing], resume: str = "") -> list[str]:
    """Suggest commands for networks that have not run, have failed, or are not part of the sweep.

    Args:
        stored: the plan of the sweep.
        missing: the missing values.
        resume: as for `incomplete_error`.

    Returns:
        One line per command or hint.
    """
    begun = {cell.why for cell in missing if cell.why}
    lines = []
    if begun - {NOT_MEASURED}:
        retry = " --failed" if begun & {PlanStatus.FAILED.value, PlanStatus.BLOCKED.value} else ""
        lines.append(f"To run the sweep's unfinished jobs: {resume or f'orch resume {stored.name}'}{retry}")
    if NOT_MEASURED in begun:
        lines.append("Some jobs have no value because their images have no landmarks or part masks.")
    absent = {_network(cell) for cell in missing if not cell.why}
    return [*lines, *(_sweep_advice(stored, absent) if absent else [])]


def _describe(missing: Sequence[Missing]) -> str:
    """Such as `12 networks (voc_part bird, horse: alexnet, vgg16)`; categories with equal gaps are grouped."""
    networks = {(cell.place, cell.backbone, cell.variant) for cell in missing}
    lacking: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for place, backbone in dict.fromkeys((cell.place, cell.backbone) for cell in missing):
        variants = [variant for variant in VARIANTS if (place, backbone, variant) in networks]
        what = backbone if len(variants) == len(VARIANTS) else f"{backbone} {variants[0]}"
        group = place.dataset if place.task == "single" else f"{place.dataset} ({place.loss})"
        lacking[group, what][place.category] = None
    by_gap: dict[tuple[str, tuple[str, ...]], list[str]] = defaultdict(list)
    for (group, what), categories in lacking.items():
        by_gap[group, tuple(categories)].append(what)
    listed = (f"{group} {_names(categories)}: {_names(whats)}" for (group, categories), whats in by_gap.items())
    return f"{len(networks)} networks ({'; '.join(listed)})"


def _names(names: Sequence[str]) -> str:
    if tuple(names) == (ALL,):
        return "all in one network"
    return ", ".join(names) if len(names) <= MAX_NAMES else f"{', '.join(names[:3])} and {len(names) - 3} more"


def _network(missing: Missing) -> PaperNetwork:
    place = missing.place
    members = (c.id for c in CATEGORIES if c.dataset == place.dataset and place.category in (ALL, c.name))
    return PaperNetwork(frozenset(members), place.loss, missing.backbone, missing.variant)


def _sweep_advice(stored: StoredPlan, absent: set[PaperNetwork]) -> list[str]:
    """The command with the smallest built-in grid that has the networks, and the sweep's own field values."""
    grids = {name: _jobs(stored, name) for name in GRIDS}
    networks = {name: {network_of(job) for job in jobs} for name, jobs in grids.items()}
    offered = absent & set().union(*networks.values())
    lines = []
    fitting = [name for name in grids if offered and offered <= networks[name]]
    if fitting:
        grid = min(fitting, key=lambda name: len(grids[name]))
        lines.append(_grid_advice(stored, grid, grids[grid]))
    if absent - offered:
        lines.append(
            f"No built-in grid has {len(absent - offered)} of them: add them as `include` rows of a sweep file."
        )
    return lines


def _grid_advice(stored: StoredPlan, grid: str, jobs: Sequence[JobSpec]) -> str:
    name = f"{stored.name}-{grid}"[:80]
    sets = _overrides(stored, jobs)
    command = _command(stored, grid, jobs, sets or {}, name)
    if sets is None:
        command += f" (the sweep has further axes: put them in a sweep file that begins `grid: {grid}`)"
    return f"To run the networks it does not contain (finished jobs are reused): {command}; then: orch report {name}"


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
    planned = plan(define(request), NullResolver())
    return [job for job in planned.jobs if job.key not in planned.upstream_keys]


def _overrides(stored: StoredPlan, jobs: Sequence[JobSpec]) -> Tree | None:
    """Fields in which all the sweep's jobs differ from the grid's in the same way; None if they vary."""
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
    if found.get("weights.source") == "everything":  # planning fills its data in
        return {name: value for name, value in found.items() if not name.startswith("weights.data.")}
    return found
