"""The commands of `orch weights`: from which trained networks a sweep may start."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, get_args

import typer

from orchestrator.cli import console
from orchestrator.cli.options import Json, complete_backbone
from orchestrator.cli.text import weights as text
from orchestrator.services import weights as service
from orchestrator.settings import Settings
from schemas.base import did_you_mean
from schemas.errors import SpecError
from schemas.job import BackboneName

app = typer.Typer(no_args_is_help=True, help="From which trained networks a sweep may start.")

JOB = "job:"

Width = Annotated[float | None, typer.Option(help="Multiplier of the channels; published networks have 1.")]


@app.command("list")
def list_(json: Json = False) -> None:
    """List where networks can start: built-in sources, and files that were imported.

    orch weights list
    """
    settings = Settings()
    found = service.list_weights(settings)
    console.show(text.list_json(found) if json else text.list_text(found, settings.weights_dir))


@app.command("import")
def import_(
    source: Annotated[str, typer.Argument(help="A published weights file, or `job:` and a job's key or title.")],
    backbone: Annotated[
        str | None,
        typer.Option(help="The network a file is of.", autocompletion=complete_backbone, show_default=False),
    ] = None,
    name: Annotated[str | None, typer.Option(help="For `--weights`; else the file's.", show_default=False)] = None,
    width: Width = None,
    json: Json = False,
) -> None:
    """Verify weights layer by layer, and keep them so that `--weights NAME` starts from them.

    orch weights import imagenet-vgg-m.mat --backbone vgg_m
    orch weights import "job:voc-cat alexnet ordinary" --name cats
    """
    settings = Settings()
    if source.startswith(JOB):
        if backbone or width:
            raise SpecError("A job knows its own network. Leave out `--backbone` and `--width`.")
        done = service.import_job(settings, source.removeprefix(JOB), name=name)
    elif backbone is None:
        raise SpecError("Say of which network the file is, such as `--backbone vgg16`.")
    else:
        done = service.import_file(settings, Path(source), _backbone(backbone), name=name, width=width or 1.0)
    console.show(text.file_json(done) if json else text.imported_text(done))


@app.command("verify")
def verify(
    file: Annotated[str, typer.Argument(help="A file, or the name of imported weights.")],
    backbone: Annotated[
        str | None,
        typer.Option(help="Else what an imported file says.", autocompletion=complete_backbone, show_default=False),
    ] = None,
    width: Width = None,
    json: Json = False,
) -> None:
    """Compare every layer of a weights file with what a backbone needs. Exit code 3 where one differs.

    orch weights verify hed
    """
    found = service.verify_weights(Settings(), file, _backbone(backbone) if backbone else None, width)
    console.show(text.verify_json(found) if json else text.verify_text(found))
    service.raise_if_misfit(found)


def _backbone(word: str) -> BackboneName:
    names: tuple[BackboneName, ...] = get_args(BackboneName)
    for name in names:
        if name == word:
            return name
    raise SpecError(f"No backbone is called {word!r}. {did_you_mean(word, names)}")
