"""The command that checks everything a sweep needs."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator import settings as env
from orchestrator.cli import console, recovery
from orchestrator.cli.options import Json
from orchestrator.cli.text import doctor as text
from orchestrator.services import doctor as service

app = typer.Typer()


@app.command(rich_help_panel=recovery.PANEL)
def doctor(
    ray: Annotated[
        bool, typer.Option("--ray", help="Also start a private Ray. A cluster of ORCH_RAY_ADDRESS is always checked.")
    ] = False,
    json: Json = False,
) -> None:
    """Check addresses, credentials, stores, clocks, disks, data and every node. Changes nothing.

    Ends with 0, or with the exit code of the worst kind of problem: 3 data, 4 stores, 5 machines.

    orch doctor
    """
    found = []
    for one in service.examine(env.Settings(), with_ray=ray):
        found.append(one)
        if not json:
            console.show(text.checked_line(one))
    if json:
        console.show(text.DoctorJson.of_results(found))
    service.raise_if_unwell(found)
