"""Where a network's initial convolutions come from: an upstream job, torchvision, a file, or random numbers."""

from __future__ import annotations

import argparse
import re
import socket
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from numpy._core.multiarray import scalar
from safetensors.torch import load_file
from torch import Tensor

from interp_model.backbones import TORCHVISION_BACKBONES
from interp_model.foreign.sources import input_std, packaged_weights
from interp_model.foreign.state import load_foreign_state
from interp_model.network import Network
from interp_model.state_dicts import Names, check_holds_tensors, find_convolutions
from interp_model.weights import check_layers, compare_layers, converted, load_state_into, usual_input
from schemas.errors import CheckpointError, WeightsAbsent, WeightsError
from schemas.job import FileWeights, ImagenetWeights, JobSpec, TorchvisionWeights
from schemas.model_spec import ForeignName, foreign_name
from schemas.results import CheckpointPointer
from schemas.weights import InputConvention, InputScale
from workers.checkpoints.loading import load_checkpoint
from workers.files import sha256_of
from workers.training.confined import call_confined
from workers.training.shared_weights import SharedWeights, torchvision_file, torchvision_weights
from workers.training.weight_files import FileKind, kind_of, unknown_format

NETWORK = "network"
"""Key of the network's state in a checkpoint."""
MEAN_IMAGE = "mean_image"
"""Key of the mean image in a final checkpoint: (S, S, 3)."""

PUBLISHED = "its SHA-256, which is that of "
"""Start of `InputConvention.known_by` for published files, which are all trained on ImageNet."""

CAFFE_VGG16 = "00b39a1b"
"""First digits of the SHA-256 of `vgg16-00b39a1b.pth`, Caffe's VGG-16 under torchvision's layer names."""

_HARMLESS: list[Any] = [argparse.Namespace, np.dtype, np.dtypes.Float32DType, np.dtypes.Float64DType,
                        np.dtypes.Int64DType, (scalar, "numpy.core.multiarray.scalar"), scalar]  # fmt: skip
"""Types of options and measurements that training scripts keep beside a state dict; none of them executes code."""


def load_starting_weights(
    network: Network, spec: JobSpec, upstream: CheckpointPointer | None, shared: SharedWeights | None = None
) -> None:
    """Load the weights that `spec.weights` names; RandomWeights leave the network as it was built.

    Args:
        network: the network to load into.
        spec: the job.
        upstream: final checkpoint of the upstream job, if the spec has one.
        shared: where files come from that this machine lacks.

    Raises:
        WeightsAbsent: neither this machine nor the object store has the file.
        WeightsError: the weights are unavailable or do not fit the network.
        CheckpointError: the upstream job's checkpoint is missing, damaged, or another job's.
    """
    if name := foreign_name(spec.model.backbone):
        _load_foreign(network, name, spec, upstream, shared)
    elif spec.upstream is not None:
        load_state_into(network, _upstream_state(spec, upstream))
    elif isinstance(spec.weights, TorchvisionWeights):
        load_state_into(network, _torchvision_state(spec.model.backbone, shared))
    elif isinstance(spec.weights, FileWeights):
        path, model = shared.file(spec.weights) if shared else Path(spec.weights.path), spec.model
        found = find_convolutions(read_weights_file(path, spec.weights.sha256), model.backbone, model.width)
        convention = known_input(path, found.names)
        check_layers(model.backbone, compare_layers(model.backbone, model.width, found.state, convention))
        load_state_into(network, converted(model.backbone, model.width, found.state, convention))


def _load_foreign(
    network: Network, name: ForeignName, spec: JobSpec, upstream: CheckpointPointer | None, shared: SharedWeights | None
) -> None:
    weights = spec.weights
    if spec.upstream is not None:
        content: Mapping[Any, Any] = _upstream_state(spec, upstream)
    elif isinstance(weights, TorchvisionWeights):
        content = _torchvision_state(spec.model.backbone, shared)
    elif isinstance(weights, ImagenetWeights):
        path = packaged_weights(name)
        _check_name_digest(path)
        content = read_weights_file(path)
    elif isinstance(weights, FileWeights):
        path = shared.file(weights) if shared else Path(weights.path)
        content = read_weights_file(path, weights.sha256)
    else:
        return
    load_foreign_state(network, content, input_std(name))


def _upstream_state(spec: JobSpec, upstream: CheckpointPointer | None) -> Mapping[str, Tensor]:
    assert spec.upstream is not None
    if upstream is None:
        raise CheckpointError(
            f"Job {spec.key} starts from the weights of job {spec.upstream.key}, but was sent no checkpoint of it. "
            "Run the sweep again: it runs the upstream job first."
        )
    state: Mapping[str, Tensor] = load_checkpoint(upstream, spec.upstream.key)[NETWORK]
    return state


def _torchvision_state(backbone: str, shared: SharedWeights | None) -> Mapping[str, Tensor]:
    target, weights = torchvision_file(backbone), torchvision_weights(backbone)
    if shared is not None:
        shared.torchvision(backbone)
    try:
        state: Mapping[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:  # no network, a wrong digest, or a truncated archive
        if shared is not None and shared.store is not None and not target.exists():
            raise WeightsAbsent(
                f"{socket.gethostname()} cannot load torchvision's weights for {backbone} ({error}), and "
                f"{shared.store.where} does not have them. Put {weights.url} at {target} on the machine of the driver, "
                "which pushes it, or here."
            ) from error
        raise WeightsError(
            f"torchvision's weights for {backbone} cannot be loaded ({error}). "
            f"Without internet access, put {weights.url} at {target}; if that file exists, it is damaged: delete it."
        ) from error
    _check_name_digest(target)
    return state


def _check_name_digest(path: Path) -> None:
    """Check a file against the digest in its name: torchvision checks downloads only, not files already present."""
    expected = _name_digest(path.name)
    found = sha256_of(path)
    if not found.startswith(expected):
        raise WeightsError(f"{path} has SHA-256 {found[:12]}..., not {expected}...: it is damaged. Delete it.")


def read_weights_file(path: Path, sha256: str = "") -> Mapping[Any, Any]:
    """Read what a PyTorch or safetensors file holds: a state dict, possibly wrapped. Values are not checked.

    Args:
        path: the file.
        sha256: expected digest; empty skips the check.

    Raises:
        WeightsError: the file is missing, of an unknown format, changed since it was planned, damaged, or holds more
            than tensors.
    """
    kind = kind_of(path)
    if kind in ("hdf5", "matlab"):
        raise WeightsError(
            f"{path} is not a PyTorch file. Convert it with `orch weights import`, and start from the imported weights."
        )
    if kind == "unknown":
        raise unknown_format(path)
    if sha256 and (found := sha256_of(path)) != sha256:
        raise WeightsError(
            f"{path} has SHA-256 {found[:12]}..., but {sha256[:12]}... was planned. "
            "Put the planned file back, or plan the sweep again with the new one."
        )
    content: Mapping[Any, Any] = _read_safetensors(path) if kind == "safetensors" else _read_torch(path, kind)
    try:
        check_holds_tensors(content)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    return content


def known_input(path: Path, names: Names) -> InputConvention | None:
    """Return the input of a network in a PyTorch file: by its digest if it was published, else by its layer names.

    Args:
        path: the file.
        names: whose layer names it has.

    Returns:
        None if the input is ours.
    """
    return usual_input(names) if names == "orch" else _published_input(sha256_of(path)) or usual_input(names)


def _published_input(sha256: str) -> InputConvention | None:
    """Look a digest up among torchvision's files, whose names end in its first digits, and Caffe's VGG-16."""
    from torchvision.models import get_model_weights

    if sha256.startswith(CAFFE_VGG16):
        return InputConvention(scale="255", order="bgr", known_by=f"{PUBLISHED}Caffe's VGG-16")
    for backbone in TORCHVISION_BACKBONES:
        for weights in get_model_weights(backbone):
            if sha256.startswith(_name_digest(weights.url)):
                scale: InputScale = "255" if max(weights.transforms().std) < 0.01 else "1"
                return InputConvention(scale=scale, order="rgb", known_by=f"{PUBLISHED}torchvision's {backbone}")
    return None


def _name_digest(name: str) -> str:
    """Return the digest in a file name of torchvision, such as `alexnet-owt-7be5be79.pth`."""
    return Path(name).stem.rsplit("-", 1)[-1]


def _read_torch(path: Path, kind: FileKind) -> Any:
    if kind == "torch":
        _check_archive(path)
    try:
        call_confined(_probe, path)
        content = _load(path)
    except WeightsError:
        raise
    except Exception as error:
        raise WeightsError(f"{path} cannot be read as tensors alone{_reason(str(error))}") from error
    return content


def _probe(path: Path) -> None:
    """Load a file and forget it. A file that passes this in a confined process can be loaded in another one."""
    _load(path)


def _load(path: Path) -> Any:
    """Load a PyTorch file of tensors and plain values, without executing anything in it.

    Tensors of an archive are mapped, so they cannot be larger than the file.
    """
    mmap = kind_of(path) == "torch"
    with warnings.catch_warnings(), torch.serialization.safe_globals(_HARMLESS):
        warnings.simplefilter("ignore")  # about sparse tensors, which are refused later
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)


def _reason(error: str) -> str:
    """Return the end of a message in one line; torch's own texts fill a page and advise against `weights_only`."""
    if found := re.search(r"GLOBAL (\S{1,200}) was not an allowed global", error):
        return (
            f": it holds objects of {found[1]}. Where their code is installed, load it, and save the state dict alone: "
            "torch.save(model.state_dict(), path)."
        )
    return ": it is damaged, or holds more than tensors. Copy it again, or save a state dict with torch.save."


def _check_archive(path: Path) -> None:
    """Check the table of a PyTorch archive.

    Raises:
        WeightsError: it is truncated, not PyTorch's, a program, or claims more bytes than the file has.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except Exception as error:
        raise WeightsError(
            f"{path} cannot be read as tensors alone: its archive is truncated. Copy it again."
        ) from error
    names = [PurePosixPath(entry.filename) for entry in entries]
    if any(name.name == "constants.pkl" for name in names):
        raise WeightsError(
            f"{path} cannot be read as tensors alone: it is a TorchScript program. Save its state dict: "
            "torch.save(torch.jit.load(path).state_dict(), other)."
        )
    if not any(name.name == "data.pkl" for name in names):
        raise WeightsError(
            f"{path} cannot be read as tensors alone: it is a zip archive, but not PyTorch's. Unpack it, and give the "
            "weights file in it."
        )
    size = path.stat().st_size
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries) or sum(e.file_size for e in entries) > size:
        raise WeightsError(
            f"{path} claims more bytes than the file has, or is compressed. Save it again with torch.save(state, path)."
        )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except Exception as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise WeightsError(f"{path} cannot be read as safetensors ({reason}). Save or import it again.") from error
