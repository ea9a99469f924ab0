"""What `orch weights` prints: tables for people, and the shapes of its `--json`.

orch weights list --json     [BuiltInJson, ..., WeightsJson, ...]
orch weights import --json   WeightsJson
orch weights verify --json   VerifyJson
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

from rich.console import Group, RenderableType

from orchestrator.cli.console import JsonModel
from orchestrator.cli.layout import PlainTable
from orchestrator.services.weights import Verification, WeightsFile
from schemas.job import BackboneName
from schemas.weights import Provenance

if TYPE_CHECKING:
    from interp_model.weights import LayerFit

_BUILT_IN = (
    ("torchvision", "alexnet, vgg16, torchvision:...", "ImageNet; downloaded by torchvision, or read from its cache"),
    ("imagenet", "lite:..., and torchvision's", "ImageNet; in a package of the extra [imagenet], or torchvision's"),
    ("everything", "all", "a pre-training job on everything labelled under the data root"),
    ("random", "all", "no training: random initialisation"),
)


def list_text(files: Sequence[WeightsFile], folder: Path) -> RenderableType:
    """A table of the built-in sources and the files."""
    headings = ("--weights", "backbone", "width", "weights from", "imported", "source SHA-256")
    table = PlainTable(*headings, numbers=("width", "source SHA-256"))
    for name, backbones, what in _BUILT_IN:
        table.add_row(name, backbones, "any" if name == "everything" else "1", what, "", "")
    for file in files:
        found = file.provenance
        if found is None:
            table.add_row(file.name, "?", "", file.problem, "", "")
        else:
            table.add_row(file.name, found.backbone, f"{found.width:g}", found.label, found.imported, found.sha256[:12])
    hint = (
        f"Imported files are in {folder}. Without `--weights`, the profile chooses: a pre-training job, or torchvision."
    )
    return Group(table, "", hint)


class BuiltInJson(JsonModel):
    """A source of weights that needs no file."""

    name: str
    backbones: str
    description: str


class WeightsJson(JsonModel):
    """One file of weights under ORCH_HOME."""

    name: str
    path: Path
    provenance: Provenance | None
    """Where the weights come from; null if orch did not import the file or cannot read it."""
    problem: str


def list_json(files: Sequence[WeightsFile]) -> list[BuiltInJson | WeightsJson]:
    """The built-in sources, then the files."""
    built_in = [BuiltInJson(name=name, backbones=backbones, description=what) for name, backbones, what in _BUILT_IN]
    return [*built_in, *(WeightsJson.of(file) for file in files)]


def imported_text(file: WeightsFile) -> str:
    """Where imported weights are, and a command that starts from them."""
    assert file.provenance is not None
    found = file.provenance
    sweep = f"orch sweep --grid voc-part --backbone {found.backbone} --set model.width={found.width:g}"
    lines = [str(file.path), f"{found.backbone} at width {found.width:g}, weights from {found.label}."]
    if found.unwrapped:
        lines.append(f"Unwrapped: {', '.join(found.unwrapped)}.")
    if found.input:
        lines.append(f"Input of the network: {found.input} ({found.input.known_by}).")
    lines += [f"Caveat: {caveat}." for caveat in found.caveats]
    return "\n".join([*lines, "To start from them:", f"{sweep} --weights {file.name}"])


def verify_text(found: Verification) -> RenderableType:
    """A table of the layers."""
    table = PlainTable("layer", "kind", "expected", "found", "fits")
    for layer in found.layers:
        problem = layer.problem or ("" if layer.is_finite else "not finite")
        verdict = "yes" if layer.fits else f"no: {problem}" if problem else "no"
        table.add_row(layer.layer, layer.kind, _cell(layer, layer.expected), _cell(layer, layer.found), verdict)
    return Group(f"{found.path} as {found.backbone} at width {found.width:g}", table)


class LayerJson(JsonModel):
    """One property of a layer, as the network needs it and as the file has it."""

    layer: str
    kind: str
    """`weight` or `bias`, whose values are shapes, or another property of the layer, such as `stride`."""
    expected: tuple[float | str, ...]
    found: tuple[float | str, ...] | None
    """Null if the file has no such layer."""
    is_finite: bool
    problem: str
    """What is wrong with values of the expected shape; empty if nothing is."""
    fits: bool


class VerifyJson(JsonModel):
    """The answer of `orch weights verify --json`."""

    path: Path
    backbone: BackboneName
    width: float
    fits: bool
    layers: list[LayerJson]

    @classmethod
    def of_verification(cls, found: Verification) -> Self:
        """Convert the answer of the service."""
        return cls(
            path=found.path,
            backbone=found.backbone,
            width=found.width,
            fits=not found.misfits,
            layers=[LayerJson.of(layer) for layer in found.layers],
        )


def _cell(layer: LayerFit, values: tuple[float | str, ...] | None) -> str:
    if values is None:
        return "missing"
    between = " x " if layer.kind in ("weight", "bias", "window") else " "
    return between.join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)
