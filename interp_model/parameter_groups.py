"""Parameter groups for torch optimisers: what is trained, with which weight decay and learning-rate multiplier."""

from __future__ import annotations

from typing import Any

from torch import nn

from interp_model.backbones import FC_LAYERS, NEW_LAYER
from interp_model.network import Network
from schemas.job import TrainSpec


def parameter_groups(network: Network, train: TrainSpec) -> list[dict[str, Any]]:
    """Return the trainable parameters as groups for a torch optimiser. Biases, and scales of
    normalisation, have no weight decay.

    Args:
        network: frozen layers are left out.
        train: gives the weight decay and the multipliers of the biases.

    Returns:
        Groups with `params`, `weight_decay` and `lr_multiplier`; the trainer sets `lr` to the scheduled learning rate
        times `lr_multiplier`.
    """
    weights: list[nn.Parameter] = []
    biases: dict[float, list[nn.Parameter]] = {}
    for name, block in network.blocks.items():
        for of, parameter in block.named_parameters():
            if not parameter.requires_grad:
                continue
            if parameter.ndim > 1:
                weights.append(parameter)
            else:
                multiplier = _bias_lr_multiplier(name, network, train) if of.endswith("bias") else 1.0
                biases.setdefault(multiplier, []).append(parameter)
    return [
        {"params": weights, "weight_decay": train.weight_decay, "lr_multiplier": 1.0},
        *({"params": group, "weight_decay": 0.0, "lr_multiplier": multiplier} for multiplier, group in biases.items()),
    ]


def _bias_lr_multiplier(block: str, network: Network, train: TrainSpec) -> float:
    if block == network.facts.top:
        return train.bias_lr_multiplier
    return train.new_bias_lr_multiplier if block == NEW_LAYER or block in FC_LAYERS else 1.0
