"""The terms of the training loss: the task loss, and lambda times the filter loss of each interpretable layer.

Shape legend: N images   B images of a batch   O outputs   F filters   H = W = map side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from interp_model.loss.filter_loss import FilterLoss, lambda_at, mean_peak
from interp_model.metrics.accuracy import binary_targets
from interp_model.network import Network
from schemas.job import JobSpec, LossKind


@dataclass(frozen=True)
class FilterTerm:
    """lambda times the filter loss of one interpretable layer, for one batch."""

    loss: Tensor
    weight: Tensor
    """lambda, a float64 scalar."""

    @property
    def weighted(self) -> Tensor:
        """The term as it enters the training loss."""
        return self.weight.to(self.loss.dtype) * self.loss


def task_loss(logits_BO: Tensor, label_B: Tensor, loss: LossKind) -> Tensor:
    """Return the logistic log loss summed over the outputs, or the cross entropy (Sec. 5.1); mean over the images."""
    if loss == "softmax":
        return functional.cross_entropy(logits_BO, label_B)
    sign_BO = binary_targets(label_B, logits_BO.shape[1]).to(logits_BO.dtype) * 2 - 1  # y* in {+1, -1}
    return functional.softplus(-sign_BO * logits_BO).sum(dim=1).mean()  # log(1 + exp(-y x y*)), without overflow


def build_filter_losses(spec: JobSpec, network: Network, device: torch.device) -> dict[str, FilterLoss]:
    """Build the filter loss of each interpretable layer, by layer name; empty if the spec has no filter loss."""
    if spec.filter_loss is None:
        return {}
    return {
        name: FilterLoss(spec.filter_loss, network.map_side(name), network.filters(name), spec.n_outputs).to(device)
        for name in network.interpretable_layers
    }


def filter_terms(
    filter_losses: Mapping[str, FilterLoss], maps: Mapping[str, Tensor], label_B: Tensor, epoch: int
) -> dict[str, FilterTerm]:
    """Compute the filter loss of each interpretable layer and its lambda in this epoch, by layer name.

    Args:
        filter_losses: the filter loss of each layer.
        maps: feature maps before masking, by layer: (B, F, H, W).
        label_B: labels of the batch.
        epoch: number of the epoch, from 1.
    """
    return {
        name: FilterTerm(loss=layer(maps[name], label_B), weight=lambda_at(layer.spec, epoch, layer_peak(maps[name])))
        for name, layer in filter_losses.items()
    }


def layer_peak(x_NFHW: Tensor) -> Tensor:
    """Return mean_x max_ij x_ij, averaged over the filters of a layer, as a float64 scalar without a gradient."""
    return mean_peak(x_NFHW.detach()).mean().double()
