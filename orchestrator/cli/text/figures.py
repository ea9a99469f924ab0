"""How figures and explained photographs are told: tables for people, dictionaries for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from orchestrator.cli.console import plain_table
from orchestrator.services.figures import Drawn, Explained

if TYPE_CHECKING:
    from workers.figures.explain import FilterSays

LISTED = 8


def figures_text(drawn: Sequence[Drawn]) -> RenderableType:
    return Text("\n".join(
        f"{one.path}  Fig. {one.figure} of {' and '.join(one.jobs)}{' (as logged)' if one.from_run else ''}"
        for one in drawn
    ))  # fmt: skip


def figures_json(drawn: Sequence[Drawn]) -> dict[str, Any]:
    return {
        "figures": [
            {"figure": one.figure, "file": str(one.path), "jobs": list(one.jobs), "from_run": one.from_run}
            for one in drawn
        ]
    }


def explanation_text(explained: Explained) -> RenderableType:
    """The decision, what it is made of, and the filters that matter most."""
    found = explained.found
    total = sum(says.contribution for says in found.filters)
    table = plain_table("filter", "usually peaks", "adds", "alone", "activation", "peak at x, y")
    for says in found.filters[:LISTED]:
        at = f"{says.peak[0]:.0f}, {says.peak[1]:.0f}" if says.peak else "silent"
        table.add_row(
            str(says.filter), says.place or "-", f"{says.contribution:+.3f}", f"{says.alone:+.3f}",
            f"{says.activation:.2f}", at,
        )  # fmt: skip
    left = len(found.filters) - LISTED
    for number in (0, 2, 3, 4):
        table.columns[number].justify = "right"
    lines: list[RenderableType] = [
        Text(f"{found.spec.title}: {found.decision}", style="bold"),
        f"logit of {found.label} {found.logit:+.3f} = {found.base:+.3f} without any filter {total:+.3f} from "
        f"{len(found.filters)} filters of {found.layer}",
        table,
    ]
    if left > 0:
        lines.append(f"and {left} filters that add less")
    if explained.path:
        lines.append(Text(str(explained.path)))
    return Group(*lines)


def explanation_json(explained: Explained) -> dict[str, Any]:
    """`base + the sum of all contributions + residual == logit`."""
    found, box = explained.found, explained.found.box
    return {
        "job": explained.key,
        "title": found.spec.title,
        "image": str(explained.image),
        "box": [box.left, box.top, box.right, box.bottom],
        "decision": found.decision,
        "probabilities": dict(found.probabilities),
        "layer": found.layer,
        "explained": found.label,
        "logit": found.logit,
        "base": found.base,
        "residual": found.residual,
        "filters": [_filter(says) for says in found.filters],
        "file": str(explained.path) if explained.path else None,
    }


def _filter(says: FilterSays) -> dict[str, Any]:
    return {
        "filter": says.filter,
        "usually_peaks": says.place,
        "contribution": says.contribution,
        "alone": says.alone,
        "activation": says.activation,
        "peak": list(says.peak) if says.peak else None,
    }
