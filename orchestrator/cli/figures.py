"""The commands that look into one network: figure and explain."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli import console
from orchestrator.cli.options import Job, Json, complete_category
from orchestrator.cli.text import figures as text
from orchestrator.services import figures as service
from orchestrator.settings import Settings
from schemas.base import did_you_mean
from schemas.errors import SpecError
from schemas.order import ReportPhase

PANEL = "Look inside"

app = typer.Typer()

Root = Annotated[
    Path | None, typer.Option("--data-root", help="Folder of the photographs; else where the job's sweep found them.")
]


@app.command(rich_help_panel=PANEL)
def figure(
    job: Job,
    which: Annotated[str, typer.Option("--figure", help="4, 5, 6 or all, as the paper numbers them.")] = "all",
    out: Annotated[
        Path | None, typer.Option(help="A PNG; several figures are told apart by -figure4 and so on.")
    ] = None,
    filters: Annotated[
        int | None, typer.Option(min=1, max=12, help="Rows of Figs. 4 and 5; else 4.", show_default=False)
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(min=1, max=100, help="From which each receptive field is found; else 10.", show_default=False),
    ] = None,
    stride: Annotated[
        float | None,
        typer.Option(
            min=0.01, max=0.5, help="Of the occluder, as a share of the image; else 0.04.", show_default=False
        ),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Draw anew even what the run has.")] = False,
    data_root: Root = None,
    json: Json = False,
) -> None:
    """Write the paper's Figs. 4, 5 and 6 of a finished job.

    Fig. 5 has the ordinary network below the interpretable one where both are done. What the job's run has is taken
    from there; what has to be drawn is left there, unless an option asks for something of its own.

    orch figure "voc-cat alexnet interpretable" --figure 5 --out cat.png
    """
    how = service.Wanted(filters, images, stride, again)
    with _progress() as report:
        drawn = service.draw_figures(Settings(), job, _figures(which), out, how, data_root=data_root, report=report)
    console.show(text.figures_json(drawn) if json else text.figures_text(drawn))


@app.command(rich_help_panel=PANEL)
def explain(
    job: Job,
    image: Annotated[Path, typer.Argument(help="A photograph: JPEG, PNG and the like.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="The picture; else explain-IMAGE.png, or none with --json.", show_default=False)
    ] = None,
    box: Annotated[
        str | None,
        typer.Option(help="x0,y0,x1,y1 of the animal, pixels: networks learn from crops.", show_default=False),
    ] = None,
    category: Annotated[
        str | None,
        typer.Option(help="Explain this answer; else the likeliest.", autocompletion=complete_category,
                     show_default=False),
    ] = None,
    data_root: Root = None,
    json: Json = False,
) -> None:  # fmt: skip
    """Explain a decision: which filters fire where on a photograph, and how much each adds.

    Contributions are integrated gradients of the logit along the filters' maps: with what the biases say they sum to
    the logit.

    orch explain "voc-cat alexnet interpretable" cat.jpg --box 40,12,310,280
    """
    target = out if out is not None or json else Path(f"explain-{image.stem}.png")
    with _progress() as report:
        found = service.explain(
            Settings(), job, image, target, box=box, category=category, data_root=data_root, report=report
        )
    console.show(text.explanation_json(found) if json else text.explanation_text(found))


def _figures(word: str) -> tuple[int, ...]:
    names = {str(number): (number,) for number in service.FIGURES} | {"all": service.FIGURES}
    if word not in names:
        raise SpecError(f"There is no figure {word!r} to draw. {did_you_mean(word, names)}")
    return names[word]


@contextmanager
def _progress() -> Iterator[ReportPhase]:
    """A line that says what is being done, on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console

    with Console(stderr=True).status("looking") as status:
        yield lambda what: status.update(what)
