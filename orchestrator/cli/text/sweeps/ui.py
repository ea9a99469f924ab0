"""What `orch ui` prints: the addresses of the views."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.text import Text

from orchestrator.cli.console import JsonModel

if TYPE_CHECKING:
    from orchestrator.services.mlflow_ui import UiPages


def ui_text(pages: UiPages) -> RenderableType:
    """The addresses of MLflow's UI."""
    note = "The requested port is busy; this is another one.\n" if pages.moved else ""
    if pages.tunnel:
        note += f"From your own machine, first run: {pages.tunnel}\n"
    end = "The tracking server serves them itself." if pages.is_remote else "Press Ctrl-C to stop MLflow's UI."
    return Text(
        f"{note}jobs      {pages.jobs}\nfailed    {pages.failed}\nvariants  {pages.variants}\n"
        f"sweeps    {pages.sweeps}\n{end}",
        overflow="ignore",
        no_wrap=True,
    )


class UiJson(JsonModel):
    """The answer of `orch ui --json`: addresses of the views in MLflow's UI."""

    jobs: str
    failed: str
    variants: str
    sweeps: str
