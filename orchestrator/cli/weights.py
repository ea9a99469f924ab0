"""The commands of `orch weights`: list, import and verify the weights that networks start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, get_args

import typer

from orchestrator import settings as env
from orchestrator.cli import console
from orchestrator.cli.options import Json, choice, number
from orchestrator.cli.text import weights as text
from orchestrator.services import weights as service
from schemas.errors import SpecError
from schemas.job import BackboneName
from schemas.weights import ChannelOrder, InputScale

app = typer.Typer(no_args_is_help=True, help="Trained weights that networks start from.")

JOB = "job:"
"""Prefix of a source that is a job of the store."""

Backbone = Annotated[
    BackboneName | None,
    choice("backbone", get_args(BackboneName), help="Network of the file. Default: as an imported file says."),
]
Width = Annotated[
    float | None,
    number(
        least=0.001,
        most=1,
        whole=False,
        help="Multiplier of the channel counts. Default: as an imported file says, else 1.",
    ),
]


Scale = Annotated[
    InputScale | None,
    choice(
        "input scale",
        get_args(InputScale),
        help="Largest pixel value that the file's network takes: 1 with torchvision's mean and deviation, 255 minus a "
        "mean. Default: as the file says, else as its layer names imply.",
    ),
]
Order = Annotated[
    ChannelOrder | None,
    choice("channel order", get_args(ChannelOrder), help="Order of the channels that it takes. Default: likewise."),
]


@app.command("list")
def list_(json: Json = False) -> None:
    """List the weights that networks can start from: built-in sources and imported files.

    orch weights list
    """
    settings = env.Settings()
    found = service.list_weights(settings)
    console.show(text.list_json(found) if json else text.list_text(found, settings.weights_dir))


@app.command("import")
def import_(
    source: Annotated[
        str, typer.Argument(help="A published weights file, or `job:` followed by a job's key or title.")
    ],
    backbone: Annotated[
        BackboneName | None,
        choice("backbone", get_args(BackboneName), help="Network of the file; required, except for jobs."),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="Name for `orch sweep --weights NAME`. Default: the file's name, or job-KEY."),
    ] = None,
    width: Annotated[
        float | None,
        number(
            least=0.001,
            most=1,
            whole=False,
            help="Multiplier of the channel counts. Default: 1, as in published networks.",
        ),
    ] = None,
    input_scale: Scale = None,
    channel_order: Order = None,
    json: Json = False,
) -> None:
    """Check weights layer by layer and store them under a name, for `orch sweep --weights NAME`.

    orch weights import imagenet-vgg-m.mat --backbone vgg_m
    orch weights import "job:voc-cat alexnet ordinary" --name cats
    """
    settings = env.Settings()
    if source.startswith(JOB):
        if backbone or width or input_scale or channel_order:
            raise SpecError(
                "`--backbone`, `--width`, `--input-scale` and `--channel-order` follow from the job. Leave them out."
            )
        done = service.import_job(settings, source.removeprefix(JOB), name=name)
    elif backbone is None:
        raise SpecError(f"The network of {source} is unknown. Name it, such as `--backbone vgg16`.")
    else:
        done = service.import_file(
            settings, Path(source), backbone, name=name, width=width or 1.0, scale=input_scale, order=channel_order
        )
    console.show(text.WeightsJson.of(done) if json else text.imported_text(done))


@app.command("verify")
def verify(
    file: Annotated[str, typer.Argument(help="A weights file, or the name of imported weights.")],
    backbone: Backbone = None,
    width: Width = None,
    input_scale: Scale = None,
    channel_order: Order = None,
    json: Json = False,
) -> None:
    """Compare every layer of a weights file with what a network needs. Any mismatch ends with code 3.

    orch weights verify hed
    orch weights verify imagenet-vgg-m.mat --backbone vgg_m
    """
    found = service.verify_weights(env.Settings(), file, backbone, width, input_scale, channel_order)
    console.show(text.VerifyJson.of_verification(found) if json else text.verify_text(found))
    service.raise_if_misfit(found)
