"""Where a network's first convolutions come from: the upstream job, torchvision, a file, or chance."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from interp_model.network import Network
from interp_model.weights import TORCHVISION_BACKBONES, load_state_into
from schemas.errors import CheckpointError, WeightsError
from schemas.job import BackboneName, FileWeights, JobSpec, PretrainSpec, TorchvisionWeights
from schemas.results import CheckpointPointer
from workers.checkpoints.loading import load_checkpoint
from workers.files import sha256_of

NETWORK = "network"
"""Under which a checkpoint keeps the network's state."""
MEAN_IMAGE = "mean_image"
"""Under which a final checkpoint keeps what is taken from every image: (S, S, 3)."""

FILE_ENDINGS = (".pt", ".pth", ".safetensors")


def load_starting_weights(network: Network, spec: JobSpec, upstream: CheckpointPointer | None) -> None:
    """Put the weights that `spec.weights` names into the network; RandomWeights leave it as it was built.

    Raises:
        WeightsError: they cannot be had, or do not fit the network.
        CheckpointError: the upstream job's checkpoint is missing, torn, or not that job's.
    """
    if isinstance(spec.weights, PretrainSpec):
        load_state_into(network, _upstream_state(spec, upstream))
    elif isinstance(spec.weights, TorchvisionWeights):
        load_state_into(network, _torchvision_state(spec.model.backbone))
    elif isinstance(spec.weights, FileWeights):
        load_state_into(network, read_weights_file(Path(spec.weights.path), spec.weights.sha256))


def _upstream_state(spec: JobSpec, upstream: CheckpointPointer | None) -> Mapping[str, Tensor]:
    assert spec.upstream is not None
    if upstream is None:
        raise CheckpointError(
            f"Job {spec.key} starts from the weights of job {spec.upstream.key}, but was sent no checkpoint of it. "
            "Run the sweep again: it plans the upstream job first."
        )
    state: Mapping[str, Tensor] = load_checkpoint(upstream, spec.upstream.key)[NETWORK]
    return state


def _torchvision_state(backbone: BackboneName) -> Mapping[str, Tensor]:
    if backbone not in TORCHVISION_BACKBONES:
        raise WeightsError(
            f"torchvision publishes no weights for {backbone}, only for {', '.join(TORCHVISION_BACKBONES)}. "
            "Set `weights.source: pretrain`, or `file` with a path."
        )
    from torchvision.models import get_model_weights

    weights: Any = get_model_weights(backbone).DEFAULT
    name = weights.url.rsplit("/", 1)[-1]
    target = Path(torch.hub.get_dir()) / "checkpoints" / name
    try:
        state: Mapping[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:  # no network; a digest that differs; an archive cut short
        raise WeightsError(
            f"torchvision's weights for {backbone} cannot be had ({error}). "
            f"On a machine without internet put {weights.url} at {target}; if the file is there, it is broken."
        ) from error
    _check_name_digest(target)
    return state


def _check_name_digest(path: Path) -> None:
    """torchvision checks what it downloads, not what already lies there; the name ends in the digest's first digits."""
    expected = path.stem.rsplit("-", 1)[-1]
    found = sha256_of(path)
    if not found.startswith(expected):
        raise WeightsError(f"{path} has SHA-256 {found[:12]}..., not {expected}...: it is broken. Delete it.")


def read_weights_file(path: Path, sha256: str = "") -> Mapping[str, Tensor]:
    """The state dict in a file, ours or torchvision-named, verified against `sha256` unless that is empty.

    Raises:
        WeightsError: missing, of an unknown kind, changed since it was planned, or no state dict.
    """
    if path.suffix not in FILE_ENDINGS:
        raise WeightsError(
            f"{path} is of unknown kind. Networks start from files ending in {', '.join(FILE_ENDINGS)}; "
            "`orch weights import` makes one from files of other kinds."
        )
    if not path.is_file():
        raise WeightsError(f"This machine has no file {path}. Put the weights there, or repair `weights.path`.")
    if sha256 and (found := sha256_of(path)) != sha256:
        raise WeightsError(
            f"{path} has SHA-256 {found[:12]}..., but {sha256[:12]}... was planned. "
            "Put the planned file back, or plan the sweep again with the new one."
        )
    content: dict[str, Any] = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    for wrapper in (NETWORK, "state_dict"):  # an orch checkpoint, and what others wrap theirs in
        content = content.get(wrapper, content)
    if not content or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(
            f"{path} holds no state dict. Save one, layer names to tensors, with torch.save(state, path)."
        )
    return content


def _read_torch(path: Path) -> dict[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the unpickler says of a foreign file, it cannot be used
        raise WeightsError(f"{path} cannot be read as tensors alone ({error}). Save a state dict.") from error
    return dict(content) if isinstance(content, Mapping) else {}


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} cannot be read as safetensors ({error}). Save or import it again.") from error
