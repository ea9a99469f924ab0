"""The commands that show what one trained network has learned: figure and explain."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from orchestrator import settings as env
from orchestrator.cli import console
from orchestrator.cli.completion import complete_category
from orchestrator.cli.options import Job, Json, choice, number
from orchestrator.cli.text import figures as text
from orchestrator.services import figures as service
from orchestrator.services.choices import FIGURES
from schemas.order import ReportPhase

PANEL = "Networks"
ALL = "all"

app = typer.Typer()

Root = Annotated[
    Path | None,
    typer.Option("--data-root", help="Folder of the photographs. Default: the folder that the job's sweep used."),
]


@app.command(rich_help_panel=PANEL)
def figure(
    job: Job,
    which: Annotated[
        str,
        choice("figure", [*map(str, FIGURES), ALL], "--figure", help="Number of a figure of the paper."),
    ] = ALL,
    out: Annotated[
        Path | None,
        typer.Option(
            help="PNG file to write; several figures get -figure4 and so on appended. Default: the job's title."
        ),
    ] = None,
    filters: Annotated[
        int | None, number(least=1, most=12, help="Filters (rows) of Figs. 4 and 5. Default: 4.")
    ] = None,
    images: Annotated[
        int | None, number(least=1, most=100, help="Images used per receptive field. Default: 10.")
    ] = None,
    stride: Annotated[
        float | None,
        number(
            least=0.01,
            most=0.5,
            whole=False,
            help="Step of the occluding patch, as a fraction of the image's side. Default: 0.04.",
        ),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Draw figures again that the job's run already has.")] = False,
    data_root: Root = None,
    json: Json = False,
) -> None:
    """Write Figs. 4, 5 and 6 of the paper for a finished job.

    Fig. 5 also shows the ordinary counterpart if its job has finished.
    Figures are copied from the job's MLflow run, or drawn and stored there.
    With --filters, --images or --stride they are drawn and not stored.

    orch figure "voc-cat alexnet interpretable" --figure 5 --out cat.png
    """
    numbers = FIGURES if which == ALL else (int(which),)
    how = service.DrawOptions(filters, images, stride, again)
    with progress() as report:
        drawn = service.draw_figures(env.Settings(), job, numbers, out, how, data_root=data_root, report=report)
    console.show(text.FiguresJson.of_drawn(drawn) if json else text.figures_text(drawn))


@app.command(rich_help_panel=PANEL)
def explain(
    job: Job,
    image: Annotated[Path, typer.Argument(help="A photograph, such as a JPEG or PNG file.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="PNG file to write. Default: explain-IMAGE.png, or no file with --json.")
    ] = None,
    box: Annotated[
        str | None,
        typer.Option(
            help="Bounding box of the animal in pixels. Default: the whole image. Networks are trained on crops.",
            metavar="X0,Y0,X1,Y1",
        ),
    ] = None,
    category: Annotated[
        str | None,
        typer.Option(help="Category whose logit to explain. Default: the most probable.",
                     autocompletion=complete_category),
    ] = None,
    data_root: Root = None,
    json: Json = False,
) -> None:  # fmt: skip
    """Explain a decision: which filters fire where on a photograph, and how much each contributes to the logit.

    Contributions are integrated gradients of the logit along the feature maps.
    With the logit that is left without any filter, they sum to the logit.

    orch explain "voc-cat alexnet interpretable" cat.jpg --box 40,12,310,280
    """
    target = out if out is not None or json else Path(f"explain-{image.stem}.png")
    with progress() as report:
        found = service.explain(
            env.Settings(), job, image, target, box=box, category=category, data_root=data_root, report=report
        )
    console.show(text.ExplanationJson.of_explained(found) if json else text.explanation_text(found))


@contextmanager
def progress() -> Iterator[ReportPhase]:
    """Show the current phase on a terminal, and nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console

    with Console(stderr=True).status("starting") as status:
        yield lambda what: status.update(what)
