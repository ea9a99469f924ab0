"""Where a network's initial convolutions come from: an upstream job, torchvision, a file, or random numbers."""

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
"""Key of the network's state in a checkpoint."""
MEAN_IMAGE = "mean_image"
"""Key of the mean image in a final checkpoint: (S, S, 3)."""

FILE_ENDINGS = (".pt", ".pth", ".safetensors")


def load_starting_weights(network: Network, spec: JobSpec, upstream: CheckpointPointer | None) -> None:
    """Load the weights that `spec.weights` names; RandomWeights leave the network as it was built.

    Args:
        network: the network to load into.
        spec: the job.
        upstream: final checkpoint of the upstream job, if the spec has one.

    Raises:
        WeightsError: the weights are unavailable or do not fit the network.
        CheckpointError: the upstream job's checkpoint is missing, damaged, or another job's.
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
            "Run the sweep again: it runs the upstream job first."
        )
    state: Mapping[str, Tensor] = load_checkpoint(upstream, spec.upstream.key)[NETWORK]
    return state


def _torchvision_state(backbone: BackboneName) -> Mapping[str, Tensor]:
    if backbone not in TORCHVISION_BACKBONES:
        raise WeightsError(
            f"torchvision has no weights for {backbone}, only for {', '.join(TORCHVISION_BACKBONES)}. "
            "Set `weights.source: pretrain`, or `file` with a path."
        )
    from torchvision.models import get_model_weights

    weights: Any = get_model_weights(backbone).DEFAULT
    name = weights.url.rsplit("/", 1)[-1]
    target = Path(torch.hub.get_dir()) / "checkpoints" / name
    try:
        state: Mapping[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:  # no network, a wrong digest, or a truncated archive
        raise WeightsError(
            f"torchvision's weights for {backbone} cannot be loaded ({error}). "
            f"Without internet access, put {weights.url} at {target}; if that file exists, it is damaged: delete it."
        ) from error
    _check_name_digest(target)
    return state


def _check_name_digest(path: Path) -> None:
    """Check a file against the digest in its name: torchvision checks downloads only, not files already present."""
    expected = path.stem.rsplit("-", 1)[-1]
    found = sha256_of(path)
    if not found.startswith(expected):
        raise WeightsError(f"{path} has SHA-256 {found[:12]}..., not {expected}...: it is damaged. Delete it.")


def read_weights_file(path: Path, sha256: str = "") -> Mapping[str, Tensor]:
    """Read the state dict in a file, with our layer names or torchvision's.

    Args:
        path: the file.
        sha256: expected digest; empty skips the check.

    Raises:
        WeightsError: the file is missing, of an unknown format, changed since it was planned, or not a state dict.
    """
    if path.suffix not in FILE_ENDINGS:
        raise WeightsError(
            f"{path} has an unknown format. Networks start from files ending in {', '.join(FILE_ENDINGS)}; "
            "`orch weights import` converts files of other formats."
        )
    if not path.is_file():
        raise WeightsError(f"{path} does not exist on this machine. Put the weights there, or correct `weights.path`.")
    if sha256 and (found := sha256_of(path)) != sha256:
        raise WeightsError(
            f"{path} has SHA-256 {found[:12]}..., but {sha256[:12]}... was planned. "
            "Put the planned file back, or plan the sweep again with the new one."
        )
    content: dict[str, Any] = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    for wrapper in (NETWORK, "state_dict"):  # an orch checkpoint, and the usual wrapper of others
        content = content.get(wrapper, content)
    if not content or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(
            f"{path} is not a state dict. Save one, layer names to tensors, with torch.save(state, path)."
        )
    return content


def _read_torch(path: Path) -> dict[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises many types for foreign files
        raise WeightsError(f"{path} cannot be read as tensors alone ({error}). Save a state dict.") from error
    return dict(content) if isinstance(content, Mapping) else {}


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} cannot be read as safetensors ({error}). Save or import it again.") from error
