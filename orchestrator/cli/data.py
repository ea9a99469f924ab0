"""The commands of `orch data`: count, check, prepare and show the images that networks are trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli import console
from orchestrator.cli.data_progress import progress
from orchestrator.cli.options import Category, DataRoot, Json, Profile, folder, number, words
from orchestrator.cli.text import data as text
from orchestrator.services import data as service
from orchestrator.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Images that networks are trained on.")


@app.command("list")
def list_(data_root: DataRoot = None, json: Json = False) -> None:
    """List data sets and categories, with their numbers of objects, landmarks and part masks. None ends with code 3.

    orch data list --data-root ~/photographs
    """
    settings = Settings()
    root = _root(data_root, settings)
    if root is None:
        console.show(text.GeneratedJson.of_all() if json else text.generated_text())
    else:
        found = service.list_data(settings, root)
        console.show(text.InventoryJson.of_inventory(found) if json else text.list_text(found))
        service.raise_if_empty(found, root)


@app.command("verify")
def verify(category: Category = None, data_root: DataRoot = None, json: Json = False) -> None:
    """Open every file, and list those that are missing, broken or contradict their annotation. Any ends with code 3.

    orch data verify --data-root ~/photographs --category cat,dog
    """
    settings = Settings()
    names = service.categories_named(words(category))
    with progress() as advance:
        found = service.verify_data(settings, _root(data_root, settings), names, advance)
    console.show(text.VerifyJson.of_verified(found) if json else text.verify_text(found))
    service.raise_if_flawed(found)


@app.command("prepare")
def prepare(
    category: Category = None,
    data_root: DataRoot = None,
    profile: Profile = None,
    size: Annotated[
        list[int] | None,
        number(
            least=48,
            most=512,
            help="Side of the networks' input in pixels. May be repeated. Default: the profile's.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Decode and crop photographs into the cache that all jobs share. The same command continues after a stop.

    orch data prepare --data-root ~/photographs --profile paper
    """
    settings = Settings()
    names = service.categories_named(words(category))
    sizes = size or service.sizes_of(profile or settings.profile)
    with progress() as advance:
        done = service.prepare_data(settings, _root(data_root, settings), names, sizes, advance)
    console.show([text.PreparedJson.of(one) for one in done] if json else text.prepare_text(done))


@app.command("show")
def show(
    category: Category = None,
    out: Annotated[Path, typer.Option(help="PNG file to write.")] = Path("contact_sheet.png"),
    per_category: Annotated[int, number(least=1, most=40, help="Images per category.")] = 8,
    size: Annotated[int, number(least=48, most=512, help="Side of each image in pixels.")] = 128,
    data_root: DataRoot = None,
    json: Json = False,
) -> None:
    """Write a contact sheet of the networks' inputs, with part masks and landmarks drawn in.

    orch data show --category cat,goldfish --out cats.png
    """
    settings = Settings()
    names = service.categories_named(words(category))
    root = _root(data_root, settings)
    path = service.show_data(settings, names, root, out, per_category=per_category, size=size)
    console.show(text.FileJson(file=path) if json else text.file_text(path, generated=root is None))


def _root(data_root: Path | None, settings: Settings) -> Path | None:
    root = data_root or settings.data_root
    return folder(root)
