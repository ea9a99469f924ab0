"""Stops a training whose losses or weights are no longer finite, and says what to change."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from interp_model.network import Network
from schemas.errors import Diverged
from schemas.job import JobSpec

READ_EVERY = 200
"""Steps between two readings of the losses from a device that works beside the host, such as a GPU."""


class LossWatch:
    """Checks that the losses of a job are finite, and reads them from the device seldom."""

    def __init__(self, spec: JobSpec, device: torch.device) -> None:
        """Watch a job that trains on `device`; on a CPU every step is read at once."""
        self._spec = spec
        self._every = 1 if device.type == "cpu" else READ_EVERY
        self._unread: list[tuple[int, int, tuple[str, ...], Tensor]] = []

    def add(self, losses: Mapping[str, Tensor], epoch: int, step: int) -> None:
        """Take the losses of one step, scalars by name, and read all that are unread if it is time.

        Args:
            losses: losses by name.
            epoch: number of the epoch, from 1.
            step: number of the batch in the epoch, from 1.

        Raises:
            Diverged: a loss is not finite.
        """
        values = torch.stack([loss.detach() for loss in losses.values()])
        self._unread.append((epoch, step, tuple(losses), values))
        if len(self._unread) >= self._every:
            self.read()

    def read(self) -> None:
        """Check the losses that are unread.

        Raises:
            Diverged: a loss is not finite; the first such step is named.
        """
        unread, self._unread = self._unread, []
        if not unread:
            return
        values = torch.stack([row[-1] for row in unread]).tolist()
        for (epoch, step, names, _), of_step in zip(unread, values, strict=True):
            for name, value in zip(names, of_step, strict=True):
                if not math.isfinite(value):
                    what = f"The {name} loss of {self._spec.title} is {value} in epoch {epoch}, step {step}."
                    raise Diverged(f"{what} {_advice(self._spec)}")


def check_weights(spec: JobSpec, network: Network, epoch: int) -> None:
    """Check the weights after an epoch.

    Raises:
        Diverged: a weight is not finite.
    """
    names, parameters = zip(*network.named_parameters(), strict=True)
    are_finite = torch.stack([torch.isfinite(parameter).all() for parameter in parameters]).tolist()  # one wait
    for name, is_finite in zip(names, are_finite, strict=True):
        if not is_finite:
            raise Diverged(f"The weights {name} of {spec.title} are not finite after epoch {epoch}. {_advice(spec)}")


def _advice(spec: JobSpec) -> str:
    filter_weight = f" or `filter_loss.weight` ({spec.filter_loss.weight})" if spec.filter_loss else ""
    return f"Lower `train.learning_rate` ({spec.train.learning_rate}){filter_weight}, or set `train.max_grad_norm`."
