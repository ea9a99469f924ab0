"""Loads weights into another library's backbone: of a file in that library's names, or of a network of orch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from interp_model.network import PIXEL_SCALE, Network
from interp_model.state_dicts import readings_of
from schemas.errors import WeightsError

_SHOWN = 5
"""Names that a message lists."""


def load_foreign_state(network: Network, content: Mapping[Any, Any], std: tuple[float, float, float]) -> None:
    """Copy the weights and statistics of a backbone from a checkpoint. What is above it stays unchanged.

    Args:
        network: a network whose backbone is of another library; changed in place.
        content: a state dict, possibly wrapped, under that library's names or those of a network of orch.
        std: deviations (R, G, B) by which that library's networks take pixels in 0..1. The first kernel is converted
            to orch's input, unless the names are orch's.

    Raises:
        WeightsError: a value is missing or has another shape; the network is then unchanged.
    """
    target = network.state_dict()
    theirs = dict(_names(network, target))
    backbone = network.facts.backbone
    found, converts = _reading(content, theirs, backbone)
    for key, name in theirs.items():
        value = found[name if converts else key]
        if value.shape != target[key].shape:
            raise WeightsError(
                f"{name} has shape {tuple(value.shape)}, expected {tuple(target[key].shape)} for {backbone}. "
                "Use weights of the same network."
            )
        if not value.is_floating_point() == target[key].is_floating_point() or not bool(value.isfinite().all()):
            raise WeightsError(f"{name} holds numbers that are not finite, or no floats. Use another copy of the file.")
    with torch.no_grad():
        for key, name in theirs.items():
            target[key].copy_(found[name if converts else key])
        if converts:
            first = next(key for key in theirs if target[key].ndim == 4)
            ratio_3 = PIXEL_SCALE / (255 * torch.tensor(std)).to(target[first])
            target[first].mul_(ratio_3[:, None, None])


def _names(network: Network, state: Mapping[str, Tensor]) -> Iterator[tuple[str, str]]:
    """Yield the key of each value of the backbone in a network's state dict, and its name in the library's module."""
    for block in network.facts.blocks:
        prefix = f"blocks.{block}."
        for key in state:
            if key.startswith(prefix) and not key.endswith("num_batches_tracked"):
                yield key, key.removeprefix(prefix)


def _reading(content: Mapping[Any, Any], theirs: Mapping[str, str], backbone: str) -> tuple[Mapping[str, Tensor], bool]:
    """Return the state dict in a checkpoint, and whether its names are the library's."""
    best: tuple[int, str] = (-1, "")
    for found in readings_of(content):
        for names, converts in ((list(theirs), False), (list(theirs.values()), True)):
            missing = [name for name in names if name not in found]
            if not missing:
                return found, converts
            if len(names) - len(missing) > best[0]:
                best = len(names) - len(missing), missing[0]
    keys = [key for found in readings_of(content) for key in found][:_SHOWN]
    raise WeightsError(
        f"the weights have no {best[1]} of {backbone}: the file holds {', '.join(map(repr, keys)) or 'no tensors'}. "
        "Use a state dict of the same network."
    )
