"""The commands that plan, run and show sweeps, and the list of built-in grids."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator import settings as env
from orchestrator.cli import console
from orchestrator.cli.completion import complete_sweep
from orchestrator.cli.options import (
    Detach,
    Job,
    Json,
    Sweep,
    SweepOptions,
    Workers,
    choice,
    number,
    takes_sweep_options,
)
from orchestrator.cli.text import jobs as job_text
from orchestrator.cli.text import submit as submit_text
from orchestrator.cli.text.sweeps import grids as grids_text
from orchestrator.cli.text.sweeps import live as live_text
from orchestrator.cli.text.sweeps import outcome as outcome_text
from orchestrator.cli.text.sweeps import plan as plan_text
from orchestrator.cli.text.sweeps import report as report_text
from orchestrator.cli.text.sweeps import status as status_text
from orchestrator.cli.text.sweeps import ui as ui_text
from orchestrator.execution import progress
from orchestrator.services import jobs, mlflow_ui, reports
from orchestrator.services import submit as submitting
from orchestrator.services import sweeps as service
from orchestrator.services.choices import Format

if TYPE_CHECKING:
    from orchestrator.execution.sweep_outcome import SweepOutcome

WATCH_SECONDS = 2.0
LISTED_UP_TO, DRAWN_UP_TO = 400, 5000
"""Jobs of a sweep up to which `orch status` lists all, and `orch watch` draws all; of a larger one some are shown."""
PANEL = "Sweeps"

SomeSweep = Annotated[
    str | None,
    typer.Argument(help="Name of the sweep. Default: all sweeps.", show_default=False, autocompletion=complete_sweep),
]
AllJobs = Annotated[bool, typer.Option("--all", help="List every job of a very large sweep.")]

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
    _show_plan(options, all_jobs, json)


def _show_plan(options: SweepOptions, all_jobs: bool, json: bool) -> None:
    settings = env.Settings()
    found = service.plan_sweep(settings, options.request(settings))
    console.show(plan_text.PlanJson.of_plan(found) if json else plan_text.plan_text(found, all_jobs))


@app.command(rich_help_panel=PANEL)
@takes_sweep_options
def sweep(
    options: SweepOptions,
    workers: Workers = None,
    detach: Detach = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the plan: `orch plan`.")] = False,
    json: Json = False,
) -> None:
    """Run a sweep. The same command continues an interrupted sweep; finished jobs are not repeated.

    orch sweep --grid voc-part --category cat,cow --data-root ~/voc
    orch sweep my_sweep.yaml --set train.epochs=5 --workers 2
    """
    if dry_run:
        return _show_plan(options, all_jobs=False, json=json)
    settings = env.Settings()
    if detach:
        return _submit(settings, options, workers, json)
    return _end(service.run_sweep(settings, options.request(settings), _display(), workers=workers), json)


@app.command(rich_help_panel=PANEL)
def resume(
    sweep: Sweep,
    failed: Annotated[bool, typer.Option("--failed", help="Also run failed jobs again.")] = False,
    workers: Workers = None,
    detach: Detach = False,
    json: Json = False,
) -> None:
    """Continue a sweep as it was planned, after Ctrl-C, a crash, `orch pause` or `orch cancel`.

    orch resume smoke-laptop --failed
    """
    if detach:
        _show_submitted(submitting.submit_resume(env.Settings(), sweep, workers=workers, failed=failed), json)
    else:
        _end(service.resume_sweep(env.Settings(), sweep, _display(), workers=workers, failed=failed), json)


@app.command(hidden=True)
def drive(
    once: Annotated[bool, typer.Option("--once", help="Drive, without starting a dead driver again.")] = False,
) -> None:
    """Drive the sweep that `orch submit` has handed over. Ray's jobs API starts this in the cluster."""
    if once:
        _end(submitting.drive(env.Settings(), _display()), json=False)
    else:
        raise typer.Exit(submitting.supervise(lambda line: typer.echo(line, err=True)))


@app.command(rich_help_panel=PANEL)
def status(
    sweep: SomeSweep = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on until Ctrl-C: `orch watch SWEEP`; with --json, one line per update.")
    ] = False,
    all_jobs: AllJobs = False,
    json: Json = False,
) -> None:
    """Show the sweeps of the store, or the jobs of one sweep.

    orch status smoke-laptop --watch
    """
    if watch and sweep is not None and not (json or all_jobs):
        _draw_status(sweep, once=False)
    else:
        _show_status(sweep, all_jobs, json, again=watch)


@app.command(rich_help_panel=PANEL)
def watch(
    sweep: Sweep,
    once: Annotated[bool, typer.Option("--once", help="Show one picture and end.")] = False,
    json: Json = False,
) -> None:
    """Show the jobs of a sweep as a matrix, every two seconds until Ctrl-C.

    Without a terminal it prints a line whenever the numbers of jobs change; with --json, a line of JSON per look.

    orch watch first-laptop
    """
    if json:
        _show_status(sweep, all_jobs=True, json=True, again=not once)
    else:
        _draw_status(sweep, once)


def _draw_status(sweep: str, once: bool) -> None:
    settings = env.Settings()
    with console.Picture(once) as picture:
        while picture.is_seen:
            found = service.sweep_status(settings, sweep, up_to=DRAWN_UP_TO if picture.is_drawn else 0)
            if picture.is_drawn:
                resume = settings.resume_command(sweep)
                picture.draw(live_text.live_text(found, resume, picture.width, picture.height, time.time()))
            else:
                picture.log(status_text.change_text(found, time.time()))
            if once:
                return
            time.sleep(WATCH_SECONDS)


def _show_status(sweep: str | None, all_jobs: bool, json: bool, *, again: bool) -> None:
    settings = env.Settings()
    while True:
        if sweep is None:
            found = service.list_sweeps(settings)
            answer: console.Answer = (
                [status_text.SweepJson.of_sweep(one) for one in found] if json else status_text.sweeps_text(found)
            )
        else:
            one = service.sweep_status(settings, sweep, up_to=None if all_jobs or json else LISTED_UP_TO)
            answer = (
                status_text.StatusJson.of_sweep(one)
                if json
                else status_text.status_text(one, settings.resume_command(sweep))
            )
        console.show(answer, again=again)
        if not (again and console.is_read()):
            return
        time.sleep(WATCH_SECONDS)


@app.command(rich_help_panel=PANEL)
@takes_sweep_options
def submit(options: SweepOptions, workers: Workers = None, json: Json = False) -> None:
    """Hand a sweep to the cluster and return: `orch sweep --detach`. This machine may then be switched off.

    orch submit --grid voc-part --category cat,cow
    """
    _submit(env.Settings(), options, workers, json)


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
    found = service.sweep_tables(env.Settings(), sweep, tuple(table or ()), strict=strict)
    chosen = form or reports.format_for(out)
    if out is not None:
        reports.write(found.written(chosen), out)
        if json:
            console.show(report_text.ReportFileJson(file=out))
        else:
            console.show_plain(f"{out}\n")
    elif json or chosen is Format.JSON:
        console.show(found.as_json())
    else:
        console.show_plain(found.written(chosen, console.width()))
    if log:
        found.log()


@app.command(rich_help_panel=PANEL)
def show(
    job: Job,
    full: Annotated[
        bool, typer.Option("--full", help="Show every field of the spec, not only those that no default sets.")
    ] = False,
    json: Json = False,
) -> None:
    """Show one job: its spec, state, attempts, metrics and the location of its files.

    orch show "voc-cat alexnet interpretable"
    """
    settings = env.Settings()
    record = jobs.find_job(settings, job)
    facts = (record, jobs.artifact_uri(settings, record), jobs.is_lost(settings, record))
    console.show(job_text.JobJson.of_job(*facts) if json else job_text.job_text(*facts, full=full))


@app.command(rich_help_panel=PANEL)
def ui(
    port: Annotated[
        int,
        number(least=1, most=65535, help="Port of the UI. Falls back to a free port when it is busy."),
    ] = 5000,
    json: Json = False,
) -> None:
    """Serve MLflow's UI for the store until Ctrl-C. For a tracking server, print where it serves its own.

    orch ui --port 5001
    """
    mlflow_ui.serve_ui(
        env.Settings(), port, lambda pages: console.show(ui_text.UiJson.of(pages) if json else ui_text.ui_text(pages))
    )


@grids_app.command("list")
def grid_list(json: Json = False) -> None:
    """List the built-in grids, their axes, and how many of their jobs the profile of ORCH_PROFILE runs.

    orch grid list
    """
    grids = service.list_grids(env.Settings())
    console.show([grids_text.GridJson.of_grid(grid) for grid in grids] if json else grids_text.grids_text(grids))


def _display() -> progress.Display:
    return progress.open_display(time.monotonic)


def _submit(settings: env.Settings, options: SweepOptions, workers: int | None, json: bool) -> None:
    _show_submitted(submitting.submit_sweep(settings, options.request(settings), workers=workers), json)


def _show_submitted(submitted: submitting.Submitted, json: bool) -> None:
    console.show(submit_text.SubmittedJson.of(submitted) if json else submit_text.submitted_text(submitted))


def _end(outcome: SweepOutcome, json: bool) -> None:
    """Show the outcome of a sweep. If jobs are left, raise the error whose exit code says so."""
    console.show(outcome_text.OutcomeJson.of_outcome(outcome) if json else outcome_text.outcome_text(outcome))
    service.raise_if_incomplete(outcome, env.Settings().resume_command(outcome.name))
