"""Which numbers a training step computes with: float32, or bfloat16 for convolutions and fully-connected layers."""

from __future__ import annotations

import torch
from torch import Tensor

from interp_model.network import Network, Output
from schemas.training_spec import Precision


def forward_head(network: Network, x: Tensor, precision: Precision) -> Output:
    """Run the trained layers of a network on inputs of `Network.forward_head`.

    Args:
        network: the network, with float32 weights.
        x: features of the frozen layers, or images.
        precision: with `bfloat16`, torch's autocast chooses the layers that are computed with it.

    Returns:
        Logits and maps; those of `bfloat16` are converted to float32, so that losses and filter statistics are float32.
    """
    if precision == "float32":
        return network.forward_head(x)
    with torch.autocast(x.device.type, torch.bfloat16):
        output = network.forward_head(x)
    return Output(output.logits.float(), {name: map_NFHW.float() for name, map_NFHW in output.maps.items()})
