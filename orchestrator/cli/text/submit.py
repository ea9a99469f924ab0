"""What `orch submit` prints: who drives the sweep in the cluster, and what to type next.

orch submit, --detach       SubmittedJson
"""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from orchestrator.cli.console import JsonModel
from orchestrator.cli.layout import PlainTable
from orchestrator.ledger.lease import Lease
from orchestrator.services.submit import Submitted


def submitted_text(submitted: Submitted) -> RenderableType:
    """Who drives a submitted sweep, and what to type next."""
    name = submitted.sweep
    lines = [*(f"warning: {warning}" for warning in submitted.warnings), *submitted.pushed]
    if submitted.kept:
        lines.append(
            f"{' and '.join(submitted.kept)} of this machine {'was' if len(submitted.kept) == 1 else 'were'} not sent, "
            "because of a password in it; the cluster uses its own."
        )
    if not submitted.planned_here:
        lines.append("The cluster plans the sweep, because photographs or weights of it are not on this machine.")
    if submitted.has_ended:
        return Text(
            "\n".join([*lines, f"sweep {name}: the cluster had nothing left to run. Show it: orch status {name}"])
        )
    lease = submitted.lease
    if lease is not None:
        lines.append(f"sweep {name} is driven by process {lease.pid} on {lease.host}, in the cluster.")
    else:
        lines.append(
            f"sweep {name} was submitted, but its driver has given no sign yet. Look again: orch status {name}"
        )
    table = PlainTable("", "", has_header=False)
    for what, command in (
        ("follow", f"orch status {name} --watch"),
        ("pause", f"orch pause {name}"),
        ("go on", f"orch resume {name} --detach"),
        ("results", f"orch report {name}"),
        ("driver's log", f"{submitted.jobs_address}/#/jobs/{submitted.submission}"),
    ):
        table.add_row(what, command)
    note = "This machine may be switched off. From any machine that reaches the tracking server:"
    return Group(Text("\n".join([*lines, note])), table)


class SubmittedJson(JsonModel):
    """The answer of `orch submit --json`, and of `orch sweep` and `orch resume` with `--detach --json`."""

    sweep: str
    submission: str
    """Id of the driver's job in the cluster's jobs API."""
    jobs_address: str
    lease: Lease | None
    """Process that drives the sweep; null if it has not claimed it yet, or had nothing to do."""
    has_ended: bool
    """True if there was nothing to do."""
    planned_here: bool
    """False if the cluster plans the sweep."""
    kept: tuple[str, ...]
    """Variables of this machine that were not sent, because they hold passwords."""
    pushed: tuple[str, ...]
    """Lines about the weights files that this machine has put into the object store."""
    warnings: tuple[str, ...]
    """Warnings of planning, as in `PlanJson`."""
