"""What `orch model` prints: where the models are and how they are served, and the shapes of its `--json`.

orch model log --json        ModelJson
orch model register --json   [ModelJson, ...]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from rich.console import Group, RenderableType

from orchestrator.cli.console import JsonModel
from orchestrator.cli.layout import PlainTable
from orchestrator.services.models import PackedModel, serve_command


def models_text(models: Sequence[PackedModel]) -> RenderableType:
    """A table of the models, and the command that serves the first one."""
    table = PlainTable("model", "job", "version", "", numbers=("version",))
    for model in models:
        version = "" if model.version is None else str(model.version)
        table.add_row(model.uri, model.title, version, "" if model.is_new else "was logged before")
    return Group(table, "", "To answer requests with it (docs/python.md):", serve_command(models[0]))


class ModelJson(JsonModel):
    """A network as MLflow has it."""

    job: str
    """Key of the job."""
    title: str
    model_id: str
    uri: str
    """What MLflow's commands take."""
    version: int | None
    """Version in the registry; null if it is only logged."""
    is_new: bool
    """False if the model had been logged before."""
    serve: str
    """Command that answers requests with it."""

    @classmethod
    def of_model(cls, model: PackedModel) -> Self:
        """Convert the answer of the service."""
        return cls(
            job=model.key, title=model.title, model_id=model.model_id, uri=model.uri, version=model.version,
            is_new=model.is_new, serve=serve_command(model),
        )  # fmt: skip
