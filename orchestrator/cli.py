"""The commands: each reads its options, calls one function of the service, and shows the answer."""

from __future__ import annotations

import sys
import time
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator import render, service, upkeeptext
from orchestrator.display import Display, open_display
from orchestrator.reporting import Format, format_for, write
from orchestrator.request import BACKBONE_FIELD, DOMAINS, VARIANT_FIELD, SweepRequest, find_grid
from orchestrator.selection import parse_which
from orchestrator.settings import Settings
from orchestrator.sweepfile import parse_sets, read_sweep_file
from orchestrator.sweeprun import SweepReport
from schemas.categories import CATEGORIES, DATASETS, find_categories
from schemas.errors import OrchError, SpecError
from schemas.grids import GRIDS
from schemas.lifecycle import StopReason
from schemas.profiles import PROFILES
from schemas.sweep import SweepSpec

WATCH_SECONDS = 2.0
DEFECT = 70

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Train interpretable CNNs by the grid, and lose nothing.\n\n"
    "A first run: [bold]orch sweep --grid smoke[/bold]. Settings come from ORCH_HOME, ORCH_DATA_ROOT, ORCH_PROFILE, "
    "ORCH_TRACKING_URI and ORCH_RAY_ADDRESS.\n\n"
    "Exit codes: 0 all done, 1 some jobs failed, 2 bad usage or spec, 3 bad data or weights, 4 store, 5 too few "
    "resources, 6 sweep is driven elsewhere, 70 a defect, 130 interrupted.",
)
grids_app = typer.Typer(no_args_is_help=True, help="The built-in grids.")
data_app = typer.Typer(no_args_is_help=True, help="What the networks would see.")
app.add_typer(grids_app, name="grid")
app.add_typer(data_app, name="data")


def _starting_with(incomplete: str, names: Any) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _complete_grid(incomplete: str) -> list[str]:
    return _starting_with(incomplete, GRIDS)


def _complete_profile(incomplete: str) -> list[str]:
    return _starting_with(incomplete, PROFILES)


def _complete_category(incomplete: str) -> list[str]:
    return _starting_with(incomplete, dict.fromkeys(w for c in CATEGORIES for w in (c.name, c.label, c.id)))


def _complete_backbone(incomplete: str) -> list[str]:
    return _starting_with(incomplete, DOMAINS[BACKBONE_FIELD])


def _complete_variant(incomplete: str) -> list[str]:
    return _starting_with(incomplete, DOMAINS[VARIANT_FIELD])


def _complete_reason(incomplete: str) -> list[str]:
    return _starting_with(incomplete, StopReason)


def _complete_dataset(incomplete: str) -> list[str]:
    return _starting_with(incomplete, DATASETS)


Json = Annotated[bool, typer.Option("--json", help="Print JSON for another program.")]
File = Annotated[Path | None, typer.Argument(help="A sweep file (YAML).", show_default=False)]
Grid = Annotated[str | None, typer.Option(help="A built-in grid; `orch grid list`.", autocompletion=_complete_grid)]
ProfileName = Annotated[
    str | None, typer.Option("--profile", help="laptop or paper.", autocompletion=_complete_profile)
]
Name = Annotated[str | None, typer.Option(help="The sweep's name; else the file's, or one made from grid and profile.")]
Category = Annotated[
    list[str] | None,
    typer.Option(help="Only these, such as cat,cow or voc_part/cat.", autocompletion=_complete_category),
]
Backbone = Annotated[
    list[str] | None, typer.Option(help="alexnet, vgg_m, vgg_s, vgg16.", autocompletion=_complete_backbone)
]
VariantName = Annotated[
    list[str] | None, typer.Option("--variant", help="ordinary, interpretable.", autocompletion=_complete_variant)
]
Dataset = Annotated[list[str] | None, typer.Option(help="Only its categories.", autocompletion=_complete_dataset)]
Sets = Annotated[
    list[str] | None, typer.Option("--set", help="Any field of a job, such as train.epochs=5; may be repeated.")
]
DataRoot = Annotated[Path | None, typer.Option(help="Folder of the photographs; without it animals are generated.")]
Weights = Annotated[str | None, typer.Option(help="Where networks start: torchvision, random or a file.")]
Target = Annotated[str, typer.Argument(help="A sweep's name; or a job's key, the start of one, or its title.")]
Job = Annotated[str, typer.Argument(help="A job's key, the start of one, or its title.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Jobs at a time.")]


def _words(options: list[str] | None) -> tuple[str, ...]:
    words = tuple(word for option in options or () for word in option.split(",") if word.strip())
    if options and not words:
        raise SpecError("An option that narrows a sweep names nothing. Leave it out to have all, or name some.")
    return words


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
        categories=_words(category),
        backbones=_words(backbone),
        variants=_words(variant),
        datasets=_words(dataset),
        sets=parse_sets(sets or ()) | _weights_field(weights),
        data_root=str(root.expanduser().resolve()) if root else None,
        default_profile=settings.profile,
    )


def _weights_field(weights: str | None) -> dict[str, Any]:
    if weights is None:
        return {}
    if weights in ("torchvision", "random"):
        return {"weights": {"source": weights}}
    return {"weights": {"source": "file", "path": str(Path(weights).expanduser().resolve())}}


@app.command()
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
    found = service.plan_sweep(settings, request)
    render.show(render.plan_json(found) if json else render.plan_text(found, all_jobs))


@app.command()
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
    _end(service.run_sweep(settings, request, _display(), workers=workers), json)


@app.command()
def resume(
    sweep: Annotated[str, typer.Argument(help="The sweep's name.")],
    failed: Annotated[bool, typer.Option("--failed", help="Try failed jobs again too.")] = False,
    workers: Workers = None, json: Json = False,
) -> None:  # fmt: skip
    """Go on with a sweep as it was planned, after anything: Ctrl-C, a crash, a pause, a cancelled sweep.

    orch resume smoke-laptop --failed
    """
    _end(service.resume_sweep(Settings(), sweep, _display(), workers=workers, failed=failed), json)


@app.command()
def requeue(
    sweep: Annotated[str, typer.Argument(help="The sweep's name.")],
    failed: Annotated[bool, typer.Option("--failed", help="Put failed jobs back.")] = False,
    cancelled: Annotated[bool, typer.Option("--cancelled", help="Put cancelled jobs back.")] = False,
    reason: Annotated[
        list[str] | None,
        typer.Option(help="Only those that stopped so, such as out_of_memory.", autocompletion=_complete_reason),
    ] = None,
    category: Category = None, backbone: Backbone = None,
    from_scratch: Annotated[bool, typer.Option("--from-scratch", help="Drop their checkpoints.")] = False,
    json: Json = False,
) -> None:  # fmt: skip
    """Put failed or cancelled jobs back. Runs nothing: `orch resume` does.

    orch requeue voc-part-laptop --failed --reason out_of_memory --backbone vgg16
    """
    which = parse_which(failed=failed, cancelled=cancelled, reasons=_words(reason), categories=_words(category),
                        backbones=_words(backbone))  # fmt: skip
    done = service.requeue(Settings(), sweep, which, from_scratch=from_scratch)
    render.show(upkeeptext.requeue_json(done) if json else upkeeptext.requeue_text(done))


@app.command()
def cancel(target: Target, json: Json = False) -> None:
    """Cancel a sweep, or one job: what runs ends at a checkpoint, what waits is not begun.

    orch cancel smoke-laptop
    orch cancel "voc-cat alexnet interpretable"
    """
    done = service.cancel(Settings(), target)
    render.show(upkeeptext.control_json(done) if json else upkeeptext.control_text(done))


@app.command()
def pause(sweep: Annotated[str, typer.Argument(help="The sweep's name.")], json: Json = False) -> None:
    """Let a sweep's running jobs end at a checkpoint, and start no more. `orch resume` goes on.

    orch pause smoke-laptop
    """
    done = service.pause(Settings(), sweep)
    render.show(upkeeptext.control_json(done) if json else upkeeptext.control_text(done))


@app.command()
def why(target: Target, json: Json = False) -> None:
    """Show why jobs did not succeed, grouped by cause, with the end of a log and what to type next.

    orch why smoke-laptop
    """
    found = service.why(Settings(), target)
    render.show(upkeeptext.why_json(found) if json else upkeeptext.why_text(found))


@app.command()
def logs(
    job: Job,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the job has ended, or Ctrl-C.")] = False,
    attempt: Annotated[int | None, typer.Option(min=1, help="Else the last one.", show_default=False)] = None,
    json: Json = False,
) -> None:
    """Print what a job wrote while it ran: phases, epochs, warnings, the traceback.

    orch logs "voc-cat alexnet interpretable" --follow
    """
    if follow and json:
        raise SpecError("`--json` prints one answer, and `--follow` does not end with one. Leave one of them out.")
    if follow:
        for text in service.follow_log(Settings(), job, attempt):
            print(text, end="", flush=True)
        return
    record, log = service.job_log(Settings(), job, attempt)
    if json:
        render.show(upkeeptext.log_json(record, log))
    else:
        print(log.text, end="")


@app.command()
def fsck(
    repair: Annotated[bool, typer.Option("--repair", help="Mend what can be mended.")] = False, json: Json = False
) -> None:
    """Check that runs, results, checkpoints and claims agree. Exit code 4 where they do not.

    orch fsck --repair
    """
    report = service.fsck(Settings(), repair=repair)
    render.show(upkeeptext.fsck_json(report) if json else upkeeptext.fsck_text(report))
    service.raise_if_unsound(report)


@app.command()
def gc(dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show it.")] = False, json: Json = False) -> None:
    """Delete what nothing reads any more: checkpoints and logs of unknown jobs, old prepared images, dead Rays.

    orch gc --dry-run
    """
    waste = service.gc(Settings(), dry_run=dry_run)
    render.show(upkeeptext.gc_json(waste, dry_run) if json else upkeeptext.gc_text(waste, dry_run))


@app.command()
def status(
    sweep: Annotated[str | None, typer.Argument(help="A sweep's name; without it, all of them.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Look again every two seconds, until Ctrl-C.")] = False,
    json: Json = False,
) -> None:
    """Show the sweeps of the store, or the jobs of one."""
    settings = Settings()
    while True:
        if sweep is None:
            found = service.list_sweeps(settings)
            render.show(render.sweeps_json(found) if json else render.sweeps_text(found), clear=watch)
        else:
            one = service.sweep_status(settings, sweep)
            render.show(render.status_json(one) if json else render.status_text(one), clear=watch)
        if not watch:
            return
        time.sleep(WATCH_SECONDS)


@app.command()
def report(
    sweep: Annotated[str, typer.Argument(help="The sweep's name.")],
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
    found = service.sweep_tables(Settings(), sweep, tuple(table or ()), partial=partial)
    text = found.written(Format.JSON if json else form or format_for(out))
    if out is None:
        print(text, end="")
    else:
        write(text, out)
        print(out)
    if log:
        found.log()


@app.command()
def show(job: Job, json: Json = False) -> None:
    """Show one job: its spec, state, attempts, numbers, and where its files are.

    orch show "voc-cat alexnet interpretable"
    """
    settings = Settings()
    record = service.find_job(settings, job)
    artifacts = service.artifact_uri(settings, record)
    render.show(render.job_json(record, artifacts) if json else render.job_text(record, artifacts))


@app.command()
def ui(
    port: Annotated[int, typer.Option(help="Another one is taken where this is busy.")] = 5000, json: Json = False
) -> None:
    """Open MLflow's UI on the store, until Ctrl-C."""
    service.serve_ui(
        Settings(), port, lambda pages: render.show(render.ui_json(pages) if json else render.ui_text(pages))
    )


@grids_app.command("list")
def grid_list(json: Json = False) -> None:
    """List the built-in grids and their axes."""
    grids = [find_grid(name) for name in GRIDS]
    render.show(render.grids_json(grids) if json else render.grids_text(grids))


@data_app.command("show")
def data_show(
    category: Category = None,
    out: Annotated[Path, typer.Option(help="The picture to write.")] = Path("contact_sheet.png"),
    per_category: Annotated[int, typer.Option(min=1, max=40)] = 8,
    size: Annotated[int, typer.Option(min=48, max=512, help="Pixels.")] = 128,
    data_root: DataRoot = None,
    json: Json = False,
) -> None:
    """Write a contact sheet of what the networks see, with parts and landmarks drawn in.

    orch data show --category cat,goldfish --out cats.png
    """
    words = _words(category)
    names = tuple(dict.fromkeys(c.id for w in words for c in find_categories(w))) or tuple(c.id for c in CATEGORIES)
    root = data_root or Settings().data_root
    path = service.show_data(names, str(root.expanduser()) if root else None, out, per_category, size)
    render.show(render.file_json(path) if json else render.file_text(path, generated=root is None))


def _display() -> Display:
    return open_display(time.monotonic)


def _end(report: SweepReport, json: bool) -> None:
    """Show what a sweep found; an incomplete one ends with the code that says so."""
    render.show(render.report_json(report) if json else render.report_text(report))
    service.raise_if_incomplete(report)


def main(arguments: list[str] | None = None) -> None:
    """The one place where an expected error becomes text and an exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in words
    try:
        app([word for word in words if word != "--debug"], standalone_mode=True)
    except OrchError as error:
        _fail(str(error), error.exit_code, debug)
    except Exception as error:  # noqa: BLE001 - the boundary of the process
        _fail(f"{type(error).__name__}: {error}. This is a defect of orch; `--debug` shows where.", DEFECT, debug)


def _fail(message: str, code: int, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    typer.secho(f"error: {message}", fg=typer.colors.RED, err=True)
    raise SystemExit(code) from None


if __name__ == "__main__":
    main()
