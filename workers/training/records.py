"""What is recorded of training: the numbers of one step, their running sums, and an epoch's means."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class StepRecord:
    """Numbers of one batch; the fields are those of `EpochRecord`."""

    task_loss: float
    filter_loss: float
    lambda_: float
    mean_peak: float
    train_accuracy: float


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
    totals: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    random_states: dict[str, Any] | None = None
    """States of torch's generators after the last step; None before the first."""

    def add(self, step: StepRecord, images: int, seconds: float, random_states: dict[str, Any]) -> None:
        """Add one step of `images` images."""
        for name, value in vars(step).items():
            self.totals[name] = self.totals.get(name, 0.0) + value * images
        self.images += images
        self.steps += 1
        self.seconds += seconds
        self.random_states = random_states

    def means(self) -> dict[str, float]:
        """Return the means over the images, by field of `StepRecord`."""
        return {name: total / self.images for name, total in self.totals.items()}
