"""The commands that list, average and compare the numbers of jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator import settings as env
from orchestrator.cli import console
from orchestrator.cli.completion import complete_assignment, complete_field
from orchestrator.cli.options import Json, Sweep, choice, words
from orchestrator.cli.text import tables as text
from orchestrator.services import tables as service
from orchestrator.services.choices import FrameFormat
from schemas.errors import SpecError

PANEL = "Sweeps"

Metrics = Annotated[
    list[str] | None,
    typer.Option("--metric", help="A metric to show, such as `consistency`. May be repeated.", metavar="METRIC,..."),
]
Operand = Annotated[
    str, typer.Argument(help="A sweep, or a part of one: SWEEP@FIELD=VALUE,FIELD=VALUE.", show_default=False)
]

app = typer.Typer()


@app.command(rich_help_panel=PANEL)
def table(
    sweep: Sweep,
    by: Annotated[
        list[str] | None,
        typer.Option(
            help="Average the jobs with equal values of these fields.",
            metavar="FIELD,...",
            autocompletion=complete_field,
        ),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            help="Only jobs with this value, such as `state=failed`. May be repeated.",
            metavar="FIELD=VALUE",
            autocompletion=complete_assignment,
        ),
    ] = None,
    metric: Metrics = None,
    form: Annotated[
        FrameFormat | None, choice("format", FrameFormat, "--format", help="Default: from --out's suffix, else table.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write, such as jobs.csv or jobs.parquet. Default: standard output.")
    ] = None,
    json: Json = False,
) -> None:
    """Show the numbers of a sweep's jobs, or means over groups of them.

    orch table rates --by train.learning_rate,variant
    orch table rates --where state=failed
    orch table rates --out jobs.parquet
    """
    names = words(by)
    found = service.job_table(
        env.Settings(), sweep, by=names, where=service.parse_where(where or ()), metrics=words(metric)
    )
    chosen = form or (FrameFormat.JSON if json and out is None else service.form_for(out))
    if chosen is FrameFormat.PARQUET and out is None:
        raise SpecError("A Parquet file is not text. Name it with `--out jobs.parquet`.")
    if out is None:
        if chosen is FrameFormat.TABLE:
            console.show(text.groups_text(found, names) if names else text.jobs_text(found, words(metric)))
        else:
            console.show_plain(service.as_text(found, chosen))
        return
    service.write_frame(found, FrameFormat.CSV if chosen is FrameFormat.TABLE else chosen, out)
    console.show(text.FileJson(file=out, rows=len(found)) if json else text.written_text(out, len(found)))


@app.command(rich_help_panel=PANEL)
def compare(
    first: Operand,
    second: Operand,
    metric: Metrics = None,
    pairs: Annotated[bool, typer.Option("--pairs", help="Also list the pairs.")] = False,
    json: Json = False,
) -> None:
    """Compare two sweeps, or two parts of sweeps, pair by pair: mean difference, interval and signed-rank test.

    Jobs that agree in every field but those that tell the two apart are a pair.

    orch compare voc-part-laptop@variant=ordinary voc-part-laptop@variant=interpretable
    orch compare rates@train.learning_rate=0.01 rates@train.learning_rate=0.02 --metric test_accuracy
    """
    found = service.compare(env.Settings(), first, second, words(metric))
    console.show(text.ComparisonJson.of_comparison(found) if json else text.comparison_text(found, pairs))
