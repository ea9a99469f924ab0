"""How `orch weights` answers, for people and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType

from orchestrator.cli.console import plain_table
from orchestrator.services.weights import Verification, WeightsFile

if TYPE_CHECKING:
    from interp_model.weights import LayerFit

_BUILT_IN = (
    ("torchvision", "alexnet, vgg16", "ImageNet; torchvision downloads them, or finds them in its own cache"),
    ("random", "all", "nothing: networks start untrained"),
)


def list_text(files: Sequence[WeightsFile], folder: Path) -> RenderableType:
    table = plain_table("--weights", "backbone", "width", "weights from", "imported", "source SHA-256")
    for name, backbones, what in _BUILT_IN:
        table.add_row(name, backbones, "1", what, "", "")
    for file in files:
        found = file.provenance
        if found is None:
            table.add_row(file.name, "?", "", file.problem, "", "")
        else:
            table.add_row(file.name, found.backbone, f"{found.width:g}", found.label, found.imported, found.sha256[:12])
    hint = (
        f"Imported files lie in {folder}. Without `--weights`, the profile decides: a pre-training job, or torchvision."
    )
    return Group(table, "", hint)


def list_json(files: Sequence[WeightsFile]) -> list[Any]:
    built_in = [{"name": name, "backbones": backbones, "from": what} for name, backbones, what in _BUILT_IN]
    return [*built_in, *(file_json(file) for file in files)]


def file_json(file: WeightsFile) -> dict[str, Any]:
    provenance = file.provenance.model_dump() if file.provenance else None
    return {"name": file.name, "path": str(file.path), "provenance": provenance, "problem": file.problem}


def imported_text(file: WeightsFile) -> str:
    assert file.provenance is not None
    found = file.provenance
    sweep = f"orch sweep --grid voc-part --backbone {found.backbone} --set model.width={found.width:g}"
    return (
        f"{file.path}\n{found.backbone} at width {found.width:g}, weights from {found.label}. Start from them with:\n"
        f"{sweep} --weights {file.name}"
    )


def verify_text(found: Verification) -> RenderableType:
    table = plain_table("layer", "", "expected", "found", "fits")
    for layer in found.layers:
        verdict = "yes" if layer.fits else "no" if layer.is_finite else "no: not finite"
        table.add_row(layer.layer, layer.kind, _cell(layer, layer.expected), _cell(layer, layer.found), verdict)
    return Group(f"{found.path} as {found.backbone} at width {found.width:g}", table)


def verify_json(found: Verification) -> dict[str, Any]:
    layers = [{**layer._asdict(), "fits": layer.fits} for layer in found.layers]
    return {**asdict(found), "path": str(found.path), "layers": layers, "fits": not found.misfits}


def _cell(layer: LayerFit, values: tuple[float | str, ...] | None) -> str:
    if values is None:
        return "missing"
    between = " x " if layer.kind in ("weight", "bias", "window") else " "
    return between.join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)
