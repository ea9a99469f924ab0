"""One training step of several networks as one: their trained layers stacked, one call for each layer.

The networks have the same shape and frozen layers; weights, images, labels, filter statistics and dropout masks are
each network's own. Nothing is summed over networks but their losses, so each gets the gradient that it gets alone, up
to the order in which a batched kernel adds.

Shape legend: K networks   B images of a batch of each   F filters   H = W = map side   O outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from interp_model.loss.filter_loss import FilterLoss, lambda_at
from interp_model.metrics.accuracy import accuracy_on_device
from interp_model.network import Network, Output
from schemas.training_spec import Precision
from workers.training.gradients import Batch, Step, backward, by_name, own_layer_only, record_of
from workers.training.losses import FilterTerm, layer_peak, task_loss
from workers.training.micro_batches import fixed_dropout
from workers.training.precision import forward_head
from workers.training.records import StepRecord

Statistics = Mapping[str, Tensor]
"""Buffers of K filter losses by name, stacked."""


def can_stack(network: Network) -> bool:
    """Return whether a network can be stacked: its trained layers change no buffer, and draw nothing but the masks of
    `micro_batches.dropout_masks`."""
    inside = [module for block in network.head().values() for module in block.modules()]
    learns = network.facts.trains_statistics and any(isinstance(module, _BatchNorm) for module in inside)
    return not learns and all(isinstance(m, nn.Dropout) for m in inside if isinstance(m, _DropoutNd))


def of_stacked(batches: Sequence[Batch]) -> list[Step]:
    """Compute the gradients of a batch of each network in one go.

    Args:
        batches: batches of equal shape, whose specs have the same `pack_shape`. Nothing but the
            parameters' `grad` has changed if this raises.
    """
    first = batches[0]
    loss, networks = first.spec.loss, [batch.network for batch in batches]
    output = _forward(batches)
    label_KB = torch.stack([batch.label_B for batch in batches])
    task_K = vmap(lambda logits_BO, label_B: task_loss(logits_BO, label_B, loss))(output.logits, label_KB)
    terms: dict[str, FilterTerm] = {}
    statistics: dict[str, Statistics] = {}
    for name, map_KBFHW in output.maps.items():
        if name in first.filter_losses:
            terms[name], statistics[name] = _filter_term(name, batches, map_KBFHW, label_KB)
    backward(task_K, terms, networks, own_layer_only=own_layer_only(first.spec))
    record = record_of(
        task_K,
        terms,
        mean_peak=vmap(layer_peak)(output.maps[first.network.top_layer].detach()),
        train_accuracy=vmap(lambda logits_BO, label_B: accuracy_on_device(logits_BO, label_B, loss))(
            output.logits.detach(), label_KB
        ),
    )
    for name, stacked in statistics.items():
        _write_back([batch.filter_losses[name] for batch in batches], stacked)
    losses = by_name(task_K, terms)
    return [
        Step({name: value_K[k] for name, value_K in losses.items()}, StepRecord(*(value_K[k] for value_K in record)))
        for k in range(len(batches))
    ]


class _Head(nn.Module):
    """The trained layers of a network as a module, for `functional_call`."""

    def __init__(self, network: Network, precision: Precision) -> None:
        super().__init__()
        self.network = network
        self._precision: Precision = precision

    def forward(self, x: Tensor) -> Output:
        return forward_head(self.network, x, self._precision)


def _forward(batches: Sequence[Batch]) -> Output:
    """Return the outputs of all networks; their graph ends in each network's own parameters."""
    first = batches[0]
    head = _Head(first.network, first.spec.train.precision)
    dropouts = list(first.masks or {})

    def of_one(weights: Mapping[str, Tensor], x_B: Tensor, masks: Sequence[Tensor]) -> Output:
        with fixed_dropout(dict(zip(dropouts, masks, strict=True))) if dropouts else nullcontext():
            output: Output = functional_call(head, dict(weights), (x_B,))
        return output

    masks = [torch.stack(one) for one in zip(*((batch.masks or {}).values() for batch in batches), strict=True)]
    x_KB = torch.stack([batch.x_B for batch in batches if batch.x_B is not None])
    output: Output = vmap(of_one)(_stacked([_weights(batch.network) for batch in batches]), x_KB, masks)
    return output


def _weights(network: Network) -> dict[str, Tensor]:
    """Return the parameters and buffers of the trained layers, by their name in `_Head`."""
    return {
        f"network.blocks.{layer}.{name}": tensor
        for layer, block in network.head().items()
        for named in (block.named_parameters(), block.named_buffers())
        for name, tensor in named
    }


def _stacked(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([state[name] for state in states]) for name in states[0]}


def _filter_term(
    name: str, batches: Sequence[Batch], x_KBFHW: Tensor, label_KB: Tensor
) -> tuple[FilterTerm, Statistics]:
    """Return the filter losses of a layer with their lambdas, and what becomes of the filter losses' statistics."""
    layers = [batch.filter_losses[name] for batch in batches]
    stacked = _stacked([layer.state_dict() for layer in layers])

    def of_one(statistics: Statistics, x_BFHW: Tensor, label_B: Tensor) -> Tensor:
        loss: Tensor = functional_call(layers[0], dict(statistics), (x_BFHW, label_B))
        return loss

    loss_K = vmap(of_one)(stacked, x_KBFHW, label_KB)
    peak_K = vmap(layer_peak)(x_KBFHW.detach())
    lambdas = [
        lambda_at(layer.spec, batch.epoch, peak) for layer, batch, peak in zip(layers, batches, peak_K, strict=True)
    ]
    return FilterTerm(loss_K, torch.stack(lambdas)), stacked


def _write_back(layers: Sequence[FilterLoss], stacked: Statistics) -> None:
    for k, layer in enumerate(layers):
        for name, buffer in layer.state_dict().items():
            buffer.copy_(stacked[name][k])
