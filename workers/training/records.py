"""What is recorded of training: the numbers of one step, their running sums, and an epoch's means.

Numbers of steps stay on the device: reading one would make the host wait for all the work that the device has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor


class StepRecord(NamedTuple):
    """Numbers of one batch, float64 scalars on the device; the fields are those of `EpochRecord`."""

    task_loss: Tensor
    filter_loss: Tensor
    lambda_: Tensor
    mean_peak: Tensor
    train_accuracy: Tensor


@dataclass(frozen=True)
class EpochRecord:
    """Numbers of one epoch; losses and the mean peak are means over its images."""

    epoch: int
    task_loss: float
    filter_loss: float
    """Sum over the interpretable layers, before lambda."""
    lambda_: float
    """Mean over layers and batches."""
    mean_peak: float
    """mean_x max_ij x_ij of the measured layer, before masking."""
    train_accuracy: float
    """Accuracy on the training batches as the network saw them: augmented, and with dropout."""
    validation_accuracy: float
    learning_rate: float
    seconds: float
    mutual_information: float
    """Mutual information of the measured layer's filters on held-out images (Eq. 1), in nats; mean over the filters."""
    category_entropy: float
    """Inter-category entropy of Eq. 5, in nats; mean over the filters."""
    spatial_entropy: float
    """Spatial entropy of Eq. 5, in nats; mean over the filters."""


@dataclass
class EpochSums:
    """Progress within an epoch: sums of the steps' numbers over the images, and the state of dropout's generators."""

    steps: int = 0
    images: int = 0
    totals: Tensor | None = None
    """Sums in the order of `StepRecord`, on the device: (5,), float64; None before the first step."""
    seconds: float = 0.0
    random_states: dict[str, Any] | None = None
    """States of torch's generators after the last step; None before the first."""

    @classmethod
    def of(cls, state: Mapping[str, Any], device: torch.device) -> Self:
        """Restore what `state_dict` returned."""
        totals = [state["totals"][name] for name in StepRecord._fields] if state["totals"] else None
        kept = None if totals is None else torch.tensor(totals, dtype=torch.float64, device=device)
        return cls(**{**state, "totals": kept})

    def state_dict(self) -> dict[str, Any]:
        """Return all fields, with the sums as numbers by name."""
        return {**vars(self), "totals": self._numbers()}

    def add(self, step: StepRecord, images: int, seconds: float, random_states: dict[str, Any]) -> None:
        """Add one step of `images` images."""
        added = torch.stack(step) * images
        self.totals = added if self.totals is None else self.totals + added
        self.images += images
        self.steps += 1
        self.seconds += seconds
        self.random_states = random_states

    def means(self) -> dict[str, float]:
        """Return the means over the images, by field of `StepRecord`."""
        return {name: total / self.images for name, total in self._numbers().items()}

    def _numbers(self) -> dict[str, float]:
        return {} if self.totals is None else dict(zip(StepRecord._fields, self.totals.tolist(), strict=True))
