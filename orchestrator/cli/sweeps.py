"""The commands that plan, run and show sweeps, and the list of built-in grids."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli import console
from orchestrator.cli.options import Job, Json, Sweep, SweepOptions, Workers, choice, number, takes_sweep_options
from orchestrator.cli.text import sweeps as text
from orchestrator.execution.progress import Display, open_display
from orchestrator.execution.sweep_outcome import SweepOutcome
from orchestrator.planning.request import find_grid
from orchestrator.services import jobs, mlflow_ui
from orchestrator.services import sweeps as service
from orchestrator.services.reports import Format, format_for, write
from orchestrator.settings import Settings
from schemas.grids import GRIDS

WATCH_SECONDS = 2.0
PANEL = "Sweeps"

app = typer.Typer()
grids_app = typer.Typer(no_args_is_help=True, help="Built-in grids of jobs.")


@app.command(rich_help_panel=PANEL)
@takes_sweep_options
def plan(
    options: SweepOptions,
    all_jobs: Annotated[bool, typer.Option("--all", help="List every job, not only the first ones.")] = False,
    json: Json = False,
) -> None:
    """Show which jobs a sweep would run, and why. Changes nothing.

    orch plan --grid all-categories --backbone alexnet,vgg16
    """
    settings = Settings()
    found = service.plan_sweep(settings, options.request(settings))
    console.show(text.PlanJson.of_plan(found) if json else text.plan_text(found, all_jobs))


@app.command(rich_help_panel=PANEL)
@takes_sweep_options
def sweep(options: SweepOptions, workers: Workers = None, json: Json = False) -> None:
    """Run a sweep. The same command continues an interrupted sweep; finished jobs are not repeated.

    orch sweep --grid voc-part --category cat,cow --data-root ~/voc
    orch sweep my_sweep.yaml --set train.epochs=5 --workers 2
    """
    settings = Settings()
    _end(service.run_sweep(settings, options.request(settings), _display(), workers=workers), json)


@app.command(rich_help_panel=PANEL)
def resume(
    sweep: Sweep,
    failed: Annotated[bool, typer.Option("--failed", help="Also run failed jobs again.")] = False,
    workers: Workers = None,
    json: Json = False,
) -> None:
    """Continue a sweep as it was planned, after Ctrl-C, a crash, `orch pause` or `orch cancel`.

    orch resume smoke-laptop --failed
    """
    _end(service.resume_sweep(Settings(), sweep, _display(), workers=workers, failed=failed), json)


@app.command(rich_help_panel=PANEL)
def status(
    sweep: Annotated[
        str | None, typer.Argument(help="Name of the sweep. Default: all sweeps.", show_default=False)
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Update every two seconds until Ctrl-C; with --json, one line per update.")
    ] = False,
    all_jobs: Annotated[bool, typer.Option("--all", help="List every job of a very large sweep.")] = False,
    json: Json = False,
) -> None:
    """Show the sweeps of the store, or the jobs of one sweep.

    orch status smoke-laptop --watch
    """
    settings = Settings()
    while True:
        if sweep is None:
            found = service.list_sweeps(settings)
            answer: console.Answer = (
                [text.SweepJson.of_sweep(one) for one in found] if json else text.sweeps_text(found)
            )
        else:
            one = service.sweep_status(settings, sweep)
            answer = text.StatusJson.of_sweep(one) if json else text.status_text(one, all_jobs)
        console.show(answer, again=watch)
        if not (watch and console.is_read()):
            return
        time.sleep(WATCH_SECONDS)


@app.command(rich_help_panel=PANEL)
def report(
    sweep: Sweep,
    table: Annotated[
        list[int] | None,
        number(least=1, help="Number of a table of the paper. May be repeated. Default: all with a value."),
    ] = None,
    form: Annotated[
        Format | None, choice("format", Format, "--format", help="Default: from --out's suffix, else text.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse a report that lacks values of the paper's tables.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="File to write, such as report.html or table4.tex. Default: standard output.")
    ] = None,
    log: Annotated[
        bool, typer.Option("--log/--no-log", help="Also store the report in the sweep's MLflow run.")
    ] = True,
    json: Json = False,
) -> None:
    """Show the paper's tables, our values beside the published ones, with significance tests over categories.

    Values that the sweep does not have are left out; the report says how many of the paper's values it has.

    orch report voc-part-paper --table 4 --format latex
    orch report all-categories-laptop --out report.html
    """
    found = service.sweep_tables(Settings(), sweep, tuple(table or ()), strict=strict)
    chosen = form or format_for(out)
    if out is not None:
        write(found.written(chosen), out)
        if json:
            console.show(text.ReportFileJson(file=out))
        else:
            console.show_plain(f"{out}\n")
    elif json or chosen is Format.JSON:
        console.show(found.as_json())
    else:
        console.show_plain(found.written(chosen, console.width()))
    if log:
        found.log()


@app.command(rich_help_panel=PANEL)
def show(job: Job, json: Json = False) -> None:
    """Show one job: its spec, state, attempts, metrics and the location of its files.

    orch show "voc-cat alexnet interpretable"
    """
    settings = Settings()
    record = jobs.find_job(settings, job)
    facts = (record, jobs.artifact_uri(settings, record), jobs.is_lost(settings, record))
    console.show(text.JobJson.of_job(*facts) if json else text.job_text(*facts))


@app.command(rich_help_panel=PANEL)
def ui(
    port: Annotated[
        int,
        number(least=1, most=65535, help="Port of the UI. Falls back to a free port when it is busy."),
    ] = 5000,
    json: Json = False,
) -> None:
    """Serve MLflow's UI for the store until Ctrl-C.

    orch ui --port 5001
    """
    mlflow_ui.serve_ui(
        Settings(), port, lambda pages: console.show(text.UiJson.of(pages) if json else text.ui_text(pages))
    )


@grids_app.command("list")
def grid_list(json: Json = False) -> None:
    """List the built-in grids and their axes.

    orch grid list
    """
    grids = [find_grid(name) for name in GRIDS]
    console.show(grids if json else text.grids_text(grids))


def _display() -> Display:
    return open_display(time.monotonic)


def _end(outcome: SweepOutcome, json: bool) -> None:
    """Show the outcome of a sweep. If jobs are left, raise the error whose exit code says so."""
    console.show(text.OutcomeJson.of_outcome(outcome) if json else text.outcome_text(outcome))
    service.raise_if_incomplete(outcome)
