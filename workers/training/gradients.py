"""The gradients of one training step: task loss plus lambda times the filter loss (Eq. 3), and what is recorded of it.

Shape legend: B images of a batch   K networks that are trained as one; without them a loss is a scalar.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from interp_model.loss.filter_loss import FilterLoss
from interp_model.metrics.accuracy import accuracy_on_device
from interp_model.network import Network, Output
from schemas.job import JobSpec
from workers.training.losses import FilterTerm, filter_terms, layer_peak, task_loss
from workers.training.micro_batches import PartialBatch, fixed_dropout
from workers.training.precision import forward_head
from workers.training.records import StepRecord


@dataclass(frozen=True)
class Batch:
    """One batch of one job, with the network that is trained on it."""

    spec: JobSpec
    network: Network
    filter_losses: Mapping[str, FilterLoss]
    """By name of the interpretable layer."""
    label_B: Tensor
    epoch: int
    """Number of the epoch, from 1."""
    x_B: Tensor | None = None
    """Input of `Network.forward_head`; None if the batch is computed in parts."""
    masks: Mapping[nn.Dropout, Tensor] | None = None
    """Mask of each dropout layer; None if the layers draw their own."""


class Step(NamedTuple):
    """What a step has computed beside the gradients, which are in the parameters' `grad`."""

    losses: dict[str, Tensor]
    """Scalars without a graph, by name."""
    record: StepRecord


def of_whole_batch(batch: Batch) -> Step:
    """Compute the gradients of a batch at once."""
    assert batch.x_B is not None
    with fixed_dropout(batch.masks) if batch.masks else nullcontext():
        output = forward_head(batch.network, batch.x_B, batch.spec.train.precision)
    task, terms = _losses(batch, output)
    backward(task, terms, [batch.network], own_layer_only=own_layer_only(batch.spec))
    return _step(batch, output, task, terms)


def of_parts(batch: Batch, parts: PartialBatch) -> Step:
    """Compute the gradients of a batch that is cut into parts to save memory."""
    output = parts.forward()
    task, terms = _losses(batch, output)
    map_gradients = {name: torch.autograd.grad(term.weighted, output.maps[name])[0] for name, term in terms.items()}
    parts.backward(
        lambda logits_bO, part: task_loss(logits_bO, batch.label_B[part], batch.spec.loss),
        map_gradients,
        own_layer_only=own_layer_only(batch.spec),
    )
    return _step(batch, output, task, terms)


def own_layer_only(spec: JobSpec) -> bool:
    """Return whether a filter loss trains its own layer alone."""
    return spec.filter_loss is not None and spec.filter_loss.gradient_scope == "layer"


def backward(
    task: Tensor, terms: Mapping[str, FilterTerm], networks: Sequence[Network], *, own_layer_only: bool
) -> None:
    """Add the gradient of the whole loss (Eq. 3) to the `grad` of the trained parameters.

    Args:
        task: task loss, a scalar or (K,).
        terms: filter losses, likewise.
        networks: the network, or K networks none of which affects the losses of another.
        own_layer_only: stop the gradients of the filter losses below their layers' own weights.
    """
    if own_layer_only:
        own = {name: _own_gradients(name, term, networks) for name, term in terms.items()}
        task.sum().backward()  # type: ignore[no-untyped-call]
        for name, gradients in own.items():
            for parameter, gradient in zip(_parameters(name, networks), gradients, strict=True):
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        return
    total = task + sum(term.weighted for term in terms.values())
    total.sum().backward()  # type: ignore[no-untyped-call]


def record_of(
    task: Tensor, terms: Mapping[str, FilterTerm], *, mean_peak: Tensor, train_accuracy: Tensor
) -> StepRecord:
    """Return what is recorded of a step; arguments and values are scalars, or (K,). The first two as for `backward`."""
    return StepRecord(
        task_loss=task.detach().double(),
        filter_loss=_sum((term.loss.detach() for term in terms.values()), like=task),
        lambda_=_sum((term.weight for term in terms.values()), like=task) / max(len(terms), 1),
        mean_peak=mean_peak,
        train_accuracy=train_accuracy,
    )


def by_name(task: Tensor, terms: Mapping[str, FilterTerm]) -> dict[str, Tensor]:
    """Return the losses by name, without their graphs."""
    return {"task": task.detach()} | {f"{name} filter": term.loss.detach() for name, term in terms.items()}


def _losses(batch: Batch, output: Output) -> tuple[Tensor, dict[str, FilterTerm]]:
    terms = filter_terms(batch.filter_losses, output.maps, batch.label_B, batch.epoch)
    return task_loss(output.logits, batch.label_B, batch.spec.loss), terms


def _step(batch: Batch, output: Output, task: Tensor, terms: Mapping[str, FilterTerm]) -> Step:
    record = record_of(
        task,
        terms,
        mean_peak=layer_peak(output.maps[batch.network.top_layer]),
        train_accuracy=accuracy_on_device(output.logits.detach(), batch.label_B, batch.spec.loss),
    )
    return Step(by_name(task, terms), record)


def _sum(values: Iterable[Tensor], *, like: Tensor) -> Tensor:
    """Return the sum in float64; 0 in the shape and on the device of `like` if there are no values."""
    return sum((value.double() for value in values), torch.zeros_like(like, dtype=torch.float64))


def _own_gradients(layer: str, term: FilterTerm, networks: Sequence[Network]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(term.weighted.sum(), _parameters(layer, networks), retain_graph=True)


def _parameters(layer: str, networks: Sequence[Network]) -> list[nn.Parameter]:
    return [parameter for network in networks for parameter in network.blocks[layer].parameters()]
