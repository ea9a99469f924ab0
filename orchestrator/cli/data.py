"""The commands of `orch data`: count, check, prepare and show the images that networks are trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator import settings as env
from orchestrator.cli import console
from orchestrator.cli.data_progress import progress
from orchestrator.cli.options import Category, DataRoot, Json, Profile, number, words
from orchestrator.cli.text import data as text
from orchestrator.cli.text import imports as imports_text
from orchestrator.planning import request
from orchestrator.services import data as service
from orchestrator.services import imports, requests
from schemas.categories import category_of

Size = Annotated[
    list[int] | None,
    number(least=48, most=512, help="Side of the networks' input in pixels. May be repeated. Default: the profile's."),
]

app = typer.Typer(no_args_is_help=True, help="Images that networks are trained on.")


@app.command("list")
def list_(data_root: DataRoot = None, json: Json = False) -> None:
    """List data sets and categories, with their numbers of objects, landmarks and part masks. None ends with code 3.

    orch data list --data-root ~/photographs
    """
    settings = env.Settings()
    root = _root(data_root, settings)
    if root is None:
        console.show(text.GeneratedJson.of_all() if json else text.generated_text())
    else:
        found = service.list_data(settings, root)
        console.show(text.InventoryJson.of_inventory(found) if json else text.list_text(found))
        service.raise_if_empty(found, root)


@app.command("import")
def import_(
    folder_: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            help="Folder of photographs; those in a folder `neg` of it are negatives.",
            show_default=False,
        ),
    ],
    name: Annotated[str, typer.Option(help="Name of the new data set, such as `mittens`.", show_default=False)],
    csv: Annotated[
        Path | None,
        typer.Option(help="Table of boxes and landmarks: columns image, category, x0, y0, x1, y1, head_x, head_y, ..."),
    ] = None,
    coco: Annotated[
        Path | None, typer.Option(help="COCO JSON with boxes or key points, as Label Studio and CVAT export it.")
    ] = None,
    masks: Annotated[
        Path | None, typer.Option(help="Folder of part masks: PART/PHOTOGRAPH.png, such as ear/tom.png.")
    ] = None,
    category: Annotated[
        str | None,
        typer.Option(help="Category of photographs whose category nothing else names. Default: the data set's name."),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace an imported data set of this name.")] = False,
    data_root: Annotated[
        Path | None, typer.Option(help="Folder that receives the data set. Default: ORCH_DATA_ROOT.")
    ] = None,
    json: Json = False,
) -> None:
    """Make a data set of your own photographs. Without annotations, folders are categories: cat/tom.jpg is a cat.

    orch data import cats --name mittens --csv cats.csv --data-root ~/photographs
    """
    from workers.data.importing.storing import Sources

    settings = env.Settings()
    given = {
        option: requests.folder(path, f"--{option}")
        for option, path in (("csv", csv), ("coco", coco), ("masks", masks))
    }
    sources = Sources(requests.folder(folder_, "FOLDER") or folder_, **given, category=category or "")
    with progress() as advance:
        done = imports.import_data(sources, name, _root(data_root, settings), replace=replace, advance=advance)
    console.show(imports_text.ImportedJson.of_imported(done) if json else imports_text.import_text(done))


@app.command("verify")
def verify(category: Category = None, data_root: DataRoot = None, json: Json = False) -> None:
    """Open every file, and list those that are missing, broken or contradict their annotation. Any ends with code 3.

    orch data verify --data-root ~/photographs --category cat,dog
    """
    settings = env.Settings()
    root = _root(data_root, settings)
    names = service.categories_named(words(category), root)
    with progress() as advance:
        found = service.verify_data(settings, root, names, advance)
    console.show(text.VerifyJson.of_verified(found) if json else text.verify_text(found))
    service.raise_if_flawed(found)


@app.command("prepare")
def prepare(
    category: Category = None,
    data_root: DataRoot = None,
    profile: Profile = None,
    size: Size = None,
    json: Json = False,
) -> None:
    """Decode and crop photographs into the cache that all jobs share. The same command continues after a stop.

    orch data prepare --data-root ~/photographs --profile paper
    """
    settings = env.Settings()
    root = _root(data_root, settings)
    names = service.categories_named(words(category), root)
    sizes = size or service.sizes_of(profile or settings.profile)
    with progress() as advance:
        done = service.prepare_data(settings, root, names, sizes, advance)
    console.show([text.PreparedJson.of(one) for one in done] if json else text.prepare_text(done))


@app.command("push")
def push(
    dataset: Annotated[
        list[str] | None, typer.Argument(help="Data sets, such as `voc_part`. Default: all under the data root.")
    ] = None,
    data_root: DataRoot = None,
    profile: Profile = None,
    size: Size = None,
    json: Json = False,
) -> None:
    """Put prepared photographs into the object store, once, for machines that lack them. A repetition goes on.

    orch data push voc_part --data-root ~/photographs --profile paper
    """
    settings = env.Settings()
    root = _root(data_root, settings)
    own = [category_of(name).dataset for name in requests.imported_under(root)]
    names = [request.find_dataset(word, own) for word in dataset or ()]
    sizes = size or service.sizes_of(profile or settings.profile)
    with progress() as advance:
        done = service.push_data(settings, root, names, sizes, advance)
    console.show([text.PushedJson.of(one) for one in done] if json else text.push_text(done))


@app.command("status")
def status(json: Json = False) -> None:
    """List what the object store has for machines without photographs: data sets, sizes, and when they were pushed.

    orch data status
    """
    where, found = service.pushed_data(env.Settings())
    console.show(text.StatusJson.of_heads(where, found) if json else text.status_text(where, found))


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
    settings = env.Settings()
    root = _root(data_root, settings)
    names = service.categories_named(words(category), root)
    path = service.show_data(settings, names, root, out, per_category=per_category, size=size)
    console.show(text.FileJson(file=path) if json else text.file_text(path, generated=root is None))


def _root(data_root: Path | None, settings: env.Settings) -> Path | None:
    root = data_root or settings.data_root
    return requests.folder(root)
