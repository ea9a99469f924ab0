"""The commands: each reads its options, calls one function of the service, and shows the answer."""

from __future__ import annotations

import sys
import time
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator import render, service
from orchestrator.display import Display, open_display
from orchestrator.request import BACKBONE_FIELD, DOMAINS, VARIANT_FIELD, SweepRequest, find_grid
from orchestrator.settings import Settings
from orchestrator.sweepfile import parse_sets, read_sweep_file
from orchestrator.sweeprun import SweepReport
from schemas.categories import CATEGORIES, DATASETS, find_categories
from schemas.errors import OrchError, SpecError
from schemas.grids import GRIDS
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
Workers = Annotated[int | None, typer.Option(min=1, help="Jobs at a time.")]


def _words(options: list[str] | None) -> tuple[str, ...]:
    return tuple(word for option in options or () for word in option.split(",") if word.strip())


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
    """Run what is left of a sweep, as it was planned.

    orch resume smoke-laptop --failed
    """
    _end(service.resume_sweep(Settings(), sweep, _display(), workers=workers, retry_failed=failed), json)


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
def show(
    job: Annotated[str, typer.Argument(help="A job's key, the start of one, or its title.")], json: Json = False
) -> None:
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
    path = service.show_data(names, str(root) if root else None, out, per_category, size)
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
