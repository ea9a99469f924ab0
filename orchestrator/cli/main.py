"""The commands: each reads its options, calls one function of the service, and shows the answer."""

from __future__ import annotations

import gc
import os
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli import console, data, figures, recovery, weights
from orchestrator.cli.options import (
    Backbone,
    Category,
    DataRoot,
    Dataset,
    File,
    Grid,
    Job,
    Json,
    Name,
    ProfileName,
    Sets,
    Sweep,
    VariantName,
    Weights,
    Workers,
    words,
)
from orchestrator.cli.text import sweeps as text
from orchestrator.execution.progress import Display, open_display
from orchestrator.execution.sweep_run import SweepOutcome
from orchestrator.planning.request import SweepRequest, find_grid
from orchestrator.planning.sweep_file import parse_sets, read_sweep_file
from orchestrator.services import jobs, mlflow_ui, sweeps
from orchestrator.services.reports import Format, format_for, write
from orchestrator.services.weights import weights_field
from orchestrator.settings import Settings
from schemas.errors import OrchError, SpecError
from schemas.grids import GRIDS
from schemas.sweep import SweepSpec

WATCH_SECONDS = 2.0
DEFECT = 70
PANEL = "Sweeps"
GROUPS = "What there is to choose from"

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Train interpretable CNNs by the grid, and lose nothing.\n\n"
    "A first run: [bold]orch sweep --grid smoke[/bold]. Settings come from ORCH_HOME, ORCH_DATA_ROOT, ORCH_PROFILE, "
    "ORCH_TRACKING_URI, ORCH_RAY_ADDRESS and ORCH_STORE_PATIENCE_MINUTES. Every command takes --debug, for a "
    "traceback.\n\n"
    "Exit codes: 0 all done, 1 some jobs failed, 2 bad usage or spec, 3 bad data or weights, 4 store, 5 too few "
    "resources, 6 sweep is driven elsewhere, 70 a defect, 130 interrupted.",
)
grids_app = typer.Typer(no_args_is_help=True, help="The built-in grids.")
app.add_typer(recovery.app)
app.add_typer(figures.app)
app.add_typer(grids_app, name="grid", rich_help_panel=GROUPS)
app.add_typer(data.app, name="data", rich_help_panel=GROUPS)
app.add_typer(weights.app, name="weights", rich_help_panel=GROUPS)


def _request(
    file: Path | None, grid: str | None, profile: str | None, name: str | None, category: list[str] | None,
    backbone: list[str] | None, variant: list[str] | None, dataset: list[str] | None, sets: list[str] | None,
    data_root: Path | None, weights: str | None, settings: Settings,
) -> SweepRequest:  # fmt: skip
    if (file is None) == (grid is None):
        raise SpecError("Name either a grid (`--grid smoke`; see `orch grid list`) or a sweep file, one of the two.")
    root = data_root or settings.data_root
    return SweepRequest(
        sweep=read_sweep_file(file) if file else SweepSpec(grid=grid),
        file_stem=file.stem if file else None,
        name=name,
        profile=profile,
        categories=words(category),
        backbones=words(backbone),
        variants=words(variant),
        datasets=words(dataset),
        sets=parse_sets(sets or ()) | weights_field(settings, weights),
        data_root=str(root.expanduser().resolve()) if root else None,
        default_profile=settings.profile,
    )


@app.command(rich_help_panel=PANEL)
def plan(
    file: File = None, grid: Grid = None, profile: ProfileName = None, name: Name = None, category: Category = None,
    backbone: Backbone = None, variant: VariantName = None, dataset: Dataset = None, sets: Sets = None,
    data_root: DataRoot = None, weights: Weights = None,
    all_jobs: Annotated[bool, typer.Option("--all", help="List every job.")] = False, json: Json = False,
) -> None:  # fmt: skip
    """Show what a sweep would run, and why. Touches nothing.

    orch plan --grid all-categories --backbone alexnet,vgg16
    """
    settings = Settings()
    request = _request(
        file, grid, profile, name, category, backbone, variant, dataset, sets, data_root, weights, settings
    )
    found = sweeps.plan_sweep(settings, request)
    console.show(text.plan_json(found) if json else text.plan_text(found, all_jobs))


@app.command(rich_help_panel=PANEL)
def sweep(
    file: File = None, grid: Grid = None, profile: ProfileName = None, name: Name = None, category: Category = None,
    backbone: Backbone = None, variant: VariantName = None, dataset: Dataset = None, sets: Sets = None,
    data_root: DataRoot = None, weights: Weights = None, workers: Workers = None, json: Json = False,
) -> None:  # fmt: skip
    """Run a sweep. Run the same command again to go on with it; finished jobs are not repeated.

    orch sweep --grid voc-part --category cat,cow --data-root ~/voc
    orch sweep my_sweep.yaml --set train.epochs=5 --workers 2
    """
    settings = Settings()
    request = _request(
        file, grid, profile, name, category, backbone, variant, dataset, sets, data_root, weights, settings
    )
    _end(sweeps.run_sweep(settings, request, _display(), workers=workers), json)


@app.command(rich_help_panel=PANEL)
def resume(
    sweep: Sweep,
    failed: Annotated[bool, typer.Option("--failed", help="Try failed jobs again too.")] = False,
    workers: Workers = None, json: Json = False,
) -> None:  # fmt: skip
    """Go on with a sweep as it was planned, after anything: Ctrl-C, a crash, a pause, a cancelled sweep.

    orch resume smoke-laptop --failed
    """
    _end(sweeps.resume_sweep(Settings(), sweep, _display(), workers=workers, failed=failed), json)


@app.command(rich_help_panel=PANEL)
def status(
    sweep: Annotated[str | None, typer.Argument(help="A sweep's name; without it, all of them.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Look again every two seconds, until Ctrl-C.")] = False,
    all_jobs: Annotated[bool, typer.Option("--all", help="List every job, of however large a sweep.")] = False,
    json: Json = False,
) -> None:
    """Show the sweeps of the store, or the jobs of one. With --watch and --json, a line of JSON for every look.

    orch status smoke-laptop --watch
    """
    settings = Settings()
    while True:
        if sweep is None:
            found = sweeps.list_sweeps(settings)
            answer: console.Answer = text.sweeps_json(found) if json else text.sweeps_text(found)
        else:
            one = sweeps.sweep_status(settings, sweep)
            answer = text.status_json(one) if json else text.status_text(one, all_jobs)
        console.show(answer, again=watch)
        if not watch:
            return
        time.sleep(WATCH_SECONDS)


@app.command(rich_help_panel=PANEL)
def report(
    sweep: Sweep,
    table: Annotated[list[int] | None, typer.Option(help="Only this table of the paper; may be repeated.")] = None,
    form: Annotated[
        Format | None, typer.Option("--format", help="Else what --out ends with, else text.", show_default=False)
    ] = None,
    partial: Annotated[bool, typer.Option("--partial", help="Show `-` where the sweep lacks a value.")] = False,
    out: Annotated[Path | None, typer.Option(help="A file, such as report.html or table4.tex.")] = None,
    log: Annotated[bool, typer.Option("--log/--no-log", help="Leave it in the sweep's MLflow run too.")] = True,
    json: Json = False,
) -> None:
    """Show the paper's tables, ours beside the published, with tests over the categories.

    orch report voc-part-paper --table 4 --format latex
    orch report all-categories-laptop --partial --out report.html
    """
    found = sweeps.sweep_tables(Settings(), sweep, tuple(table or ()), partial=partial)
    written = found.written(Format.JSON if json else form or format_for(out))
    if out is None:
        print(written, end="")
    else:
        write(written, out)
        print(out)
    if log:
        found.log()


@app.command(rich_help_panel=PANEL)
def show(job: Job, json: Json = False) -> None:
    """Show one job: its spec, state, attempts, numbers, and where its files are.

    orch show "voc-cat alexnet interpretable"
    """
    settings = Settings()
    record = jobs.find_job(settings, job)
    facts = (record, jobs.artifact_uri(settings, record), jobs.is_lost(settings, record))
    console.show(text.job_json(*facts) if json else text.job_text(*facts))


@app.command(rich_help_panel=PANEL)
def ui(
    port: Annotated[int, typer.Option(help="Another one is taken where this is busy.")] = 5000, json: Json = False
) -> None:
    """Open MLflow's UI on the store, until Ctrl-C.

    orch ui --port 5001
    """
    mlflow_ui.serve_ui(
        Settings(), port, lambda pages: console.show(text.ui_json(pages) if json else text.ui_text(pages))
    )


@grids_app.command("list")
def grid_list(json: Json = False) -> None:
    """List the built-in grids and their axes.

    orch grid list
    """
    grids = [find_grid(name) for name in GRIDS]
    console.show(text.grids_json(grids) if json else text.grids_text(grids))


def _display() -> Display:
    return open_display(time.monotonic)


def _end(report: SweepOutcome, json: bool) -> None:
    """Show what a sweep found; an incomplete one ends with the code that says so."""
    try:
        console.show(text.report_json(report) if json else text.report_text(report))
    except BrokenPipeError:  # whoever read this is gone; the exit code still tells, also at Python's own last flush
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sweeps.raise_if_incomplete(report)


def main(arguments: list[str] | None = None) -> None:
    """The one place where an expected error becomes text and an exit code."""
    typed = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in typed
    gc.set_threshold(100_000)  # a store of 10,000 jobs makes a million objects, and none of them is garbage
    try:
        app([word for word in typed if word != "--debug"], standalone_mode=True)
    except OrchError as error:
        _fail(str(error), error.exit_code, debug)
    except Exception as error:  # noqa: BLE001 - the boundary of the process
        _fail(f"{type(error).__name__}: {error}. This is a defect of orch; `--debug` shows where.", DEFECT, debug)


def _fail(message: str, code: int, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    with suppress(OSError):  # nobody listens any more
        typer.secho(f"error: {message}", fg=typer.colors.RED, err=True)
    raise SystemExit(code) from None


if __name__ == "__main__":
    main()
