"""What `orch grid list` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from rich.console import Group, RenderableType
from rich.text import Text

from orchestrator.cli.layout import PlainTable
from schemas.sweep import SweepSpec

if TYPE_CHECKING:
    from orchestrator.services.sweeps import GridFacts


def grids_text(grids: Sequence[GridFacts]) -> RenderableType:
    """A table of the built-in grids, and what the profile leaves out of them."""
    table = PlainTable("grid", "jobs", "axes", "description", numbers=("jobs",))
    for one in grids:
        grid = one.grid
        axes = " x ".join(f"{len(values)} {name}" for name, values in grid.axes.items())
        further = [f"{len(grid.include)} more" if axes else f"{len(grid.include)} jobs"] if grid.include else []
        jobs = str(one.jobs) if one.jobs == one.all_jobs else f"{one.jobs} of {one.all_jobs}"
        table.add_row(str(grid.name), jobs, " + ".join([*([axes] if axes else []), *further]), grid.description)
    narrowed = {f"{axis} {', '.join(values)}": f"--{axis}" for one in grids for axis, values in one.narrowed.items()}
    notes = [
        Text(f"Where a grid has all, profile {grids[0].profile} takes {what}; {option} names others.")
        for what, option in narrowed.items()
    ]
    return Group(table, *notes)


class GridJson(SweepSpec):
    """One grid, as in `orch grid list --json`."""

    jobs: int
    """Jobs with the profile, pre-training not counted."""
    all_jobs: int
    """Jobs of the grid as it is written."""

    @classmethod
    def of_grid(cls, facts: GridFacts) -> Self:
        """Convert the answer of the service."""
        return cls(**dict(facts.grid), jobs=facts.jobs, all_jobs=facts.all_jobs)
