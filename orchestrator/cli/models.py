"""The commands of `orch model`: log trained networks as MLflow models, and register the best ones."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from orchestrator import settings as env
from orchestrator.cli import console
from orchestrator.cli.figures import progress
from orchestrator.cli.options import Job, Json, Sweep, choice
from orchestrator.cli.text import models as text
from orchestrator.services import models as service
from orchestrator.services.choices import CRITERIA

app = typer.Typer(no_args_is_help=True, help="Trained networks as MLflow models.")


@app.command()
def log(job: Job, json: Json = False) -> None:
    """Log the network of a finished job as an MLflow model, which plain torch loads and MLflow serves.

    Exporting takes a quarter of a minute or more, so jobs do not do it themselves.

    orch model log "voc-cat alexnet interpretable"
    """
    with progress() as report:
        found = service.log_model(env.Settings(), job, report)
    console.show(text.ModelJson.of_model(found) if json else text.models_text([found]))


@app.command()
def register(
    sweep: Sweep,
    by: Annotated[
        str,
        choice("metric", CRITERIA, "--by", help="What makes a network the best one. Default: test_accuracy."),
    ] = "test_accuracy",
    json: Json = False,
) -> None:
    """Register the best network of each category and backbone in MLflow's model registry, under the alias `best`.

    orch model register all-categories-laptop
    """
    with progress() as report:
        found = service.register_best(env.Settings(), sweep, by, report, partial(typer.echo, err=True))
    console.show([text.ModelJson.of_model(one) for one in found] if json else text.models_text(found))
