"""Stops a training whose losses or weights are no longer finite, and says what to change."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from interp_model.network import Network
from schemas.errors import Diverged
from schemas.job import JobSpec


def check_losses(spec: JobSpec, values: Mapping[str, float], epoch: int, step: int) -> None:
    """Check the losses of one step.

    Args:
        spec: the job.
        values: losses by name.
        epoch: number of the epoch, from 1.
        step: number of the batch in the epoch, from 1.

    Raises:
        Diverged: a loss is not finite.
    """
    for name, value in values.items():
        if not math.isfinite(value):
            raise Diverged(f"The {name} loss of {spec.title} is {value} in epoch {epoch}, step {step}. {_advice(spec)}")


def check_weights(spec: JobSpec, network: Network, epoch: int) -> None:
    """Check the weights after an epoch.

    Raises:
        Diverged: a weight is not finite.
    """
    for name, parameter in network.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise Diverged(f"The weights {name} of {spec.title} are not finite after epoch {epoch}. {_advice(spec)}")


def _advice(spec: JobSpec) -> str:
    filter_weight = f" or `filter_loss.weight` ({spec.filter_loss.weight})" if spec.filter_loss else ""
    return f"Lower `train.learning_rate` ({spec.train.learning_rate}){filter_weight}, or set `train.max_grad_norm`."
