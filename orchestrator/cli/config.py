"""The commands of `orch config`: which settings apply, and where each comes from."""

from __future__ import annotations

import typer

from orchestrator.cli import console
from orchestrator.cli.options import DataRoot, Json, Profile
from orchestrator.cli.text import config as text
from orchestrator.services import config as service

app = typer.Typer(no_args_is_help=True, help="Settings: which apply, and where each comes from.")


@app.callback()
def config() -> None:
    """Make `config` a group although it has one command."""


@app.command()
def show(data_root: DataRoot = None, profile: Profile = None, json: Json = False) -> None:
    """Show every setting with its value and where that comes from. Passwords and keys are not shown.

    orch config show
    """
    found = service.show(data_root, profile)
    console.show(text.ConfigurationJson.of(found) if json else text.config_text(found))
