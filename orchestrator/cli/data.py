"""The commands of `orch data`: which pictures there are, whether they are sound, and what the networks would see."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli import console
from orchestrator.cli.data_progress import progress
from orchestrator.cli.options import Category, DataRoot, Json, ProfileName, words
from orchestrator.cli.text import data as text
from orchestrator.cli.text import sweeps
from orchestrator.services import data as service
from orchestrator.settings import Settings

app = typer.Typer(no_args_is_help=True, help="The pictures that networks learn from.")


@app.command("list")
def list_(data_root: DataRoot = None, json: Json = False) -> None:
    """List data sets, categories, and how many objects, landmarks and masks they have.

    orch data list --data-root ~/photographs
    """
    settings = Settings()
    root = _root(data_root, settings)
    if root is None:
        console.show(text.generated_json() if json else text.generated_text())
    else:
        found = service.list_data(settings, root)
        console.show(text.list_json(found) if json else text.list_text(found))


@app.command("verify")
def verify(category: Category = None, data_root: DataRoot = None, json: Json = False) -> None:
    """Open every file and name those that are missing, broken or contradict their annotation. Exit code 3 for any.

    orch data verify --data-root ~/photographs --category cat,dog
    """
    settings = Settings()
    names = service.categories_named(words(category))
    with progress() as advance:
        found = service.verify_data(settings, _root(data_root, settings), names, advance)
    console.show(text.verify_json(found) if json else text.verify_text(found))
    service.raise_if_flawed(found)


@app.command("prepare")
def prepare(
    category: Category = None,
    data_root: DataRoot = None,
    profile: ProfileName = None,
    size: Annotated[
        list[int] | None,
        typer.Option(min=48, max=512, help="Side of the networks' input; else the profile's. May be repeated."),
    ] = None,
    json: Json = False,
) -> None:
    """Decode and crop photographs once, into the cache that all jobs share. Run it again to go on with it.

    orch data prepare --data-root ~/photographs --profile paper
    """
    settings = Settings()
    names = service.categories_named(words(category))
    sizes = size or service.sizes_of(profile or settings.profile)
    with progress() as advance:
        done = service.prepare_data(settings, _root(data_root, settings), names, sizes, advance)
    console.show(text.prepare_json(done) if json else text.prepare_text(done))


@app.command("show")
def show(
    category: Category = None,
    out: Annotated[Path, typer.Option(help="The picture to write.")] = Path("contact_sheet.png"),
    per_category: Annotated[int, typer.Option(min=1, max=40, help="Pictures of each category.")] = 8,
    size: Annotated[int, typer.Option(min=48, max=512, help="Side of each picture in pixels.")] = 128,
    data_root: DataRoot = None,
    json: Json = False,
) -> None:
    """Write a contact sheet of what the networks see, with part masks and landmarks drawn in.

    orch data show --category cat,goldfish --out cats.png
    """
    settings = Settings()
    names = service.categories_named(words(category))
    root = _root(data_root, settings)
    path = service.show_data(settings, names, root, out, per_category=per_category, size=size)
    console.show(sweeps.file_json(path) if json else sweeps.file_text(path, generated=root is None))


def _root(data_root: Path | None, settings: Settings) -> Path | None:
    root = data_root or settings.data_root
    return root.expanduser().resolve() if root else None
