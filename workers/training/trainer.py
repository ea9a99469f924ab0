"""The training loop: task loss plus lambda times the filter loss, resumable between any two steps.

Shape legend: B images of a batch   F filters.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from interp_model.metrics.accuracy import accuracy, accuracy_on_device, chance_level
from interp_model.network import Network, Output
from interp_model.parameter_groups import parameter_groups
from schemas.job import JobSpec
from workers.training.determinism import kernels, random_states, seed_torch, set_random_states
from workers.training.divergence import LossWatch, check_weights
from workers.training.filter_information import assess
from workers.training.inputs import Indices, Inputs
from workers.training.losses import FilterTerm, build_filter_losses, filter_terms, layer_peak, task_loss
from workers.training.micro_batches import PartialBatch
from workers.training.precision import forward_head
from workers.training.records import EpochRecord, EpochSums, StepRecord
from workers.training.schedule import batches_of_epoch, flips_of_epoch, learning_rate_at
from workers.training.starting_weights import MEAN_IMAGE, NETWORK

OPTIMISER, FILTER_LOSSES, RECORDS, EPOCH_SUMS = "optimiser", "filter_losses", "records", "epoch_sums"
"""Keys of a trainer's state beside those of the network and the mean image."""


class Trainer:
    """Trains one network; everything that the remaining training depends on is in `state_dict`."""

    def __init__(
        self, spec: JobSpec, network: Network, train: Inputs, validation: Inputs, *, micro_batches: int = 1
    ) -> None:
        """Build the losses and the optimiser of a network.

        Args:
            spec: the job.
            network: the network to train, with its starting weights and on its device.
            train: images to train on.
            validation: images to measure after each epoch.
            micro_batches: parts that each batch is cut into to save memory.
        """
        self.spec = spec
        self.network = network
        self.filter_losses = build_filter_losses(spec, network, train.label_N.device)
        self.records: list[EpochRecord] = []
        self._train = train
        self._validation = validation
        self._micro_batches = micro_batches
        self._sums = EpochSums()
        self._losses = LossWatch(spec, train.label_N.device)
        self._optimiser = torch.optim.SGD(
            [dict(group) for group in parameter_groups(network, spec.train)],
            lr=spec.train.learning_rate,
            momentum=spec.train.momentum,
        )

    @property
    def epoch(self) -> int:
        """Number of completed epochs."""
        return len(self.records)

    @cached_property
    def chance(self) -> float:
        """Accuracy of the best constant answer on the validation images."""
        return chance_level(self._validation.label_N, self.spec.n_outputs, self.spec.loss)

    @property
    def step(self) -> int:
        """Number of completed batches of the current epoch."""
        return self._sums.steps

    def run_epoch(self, on_step: Callable[[], None]) -> EpochRecord:
        """Train on every image once, or on those left of an epoch in progress; then measure the validation images.

        Args:
            on_step: called before every batch. It may raise: `state_dict` is then valid, and the next call continues.

        Returns:
            The record of the epoch, which is also appended to `records`.

        Raises:
            Diverged: a loss or a weight is not finite.
        """
        epoch, train, seed = self.epoch + 1, self.spec.train, self.spec.seed
        rate = learning_rate_at(train, epoch)
        for group in self._optimiser.param_groups:
            group["lr"] = rate * group["lr_multiplier"]
        batches = batches_of_epoch(len(self._train), train.batch_size, seed, epoch)
        flips = flips_of_epoch(batches, seed, epoch, horizontal_flip=train.horizontal_flip)
        if self._sums.random_states is None:
            seed_torch(seed, epoch, "dropout")
        else:
            set_random_states(self._sums.random_states)
        self.network.train()
        since = time.monotonic()
        for step in range(self.step, len(batches)):
            on_step()
            with kernels(deterministic=train.deterministic):
                done = self._step(batches[step], flips[step], epoch, step + 1)
            now = time.monotonic()
            self._sums.add(done, len(batches[step]), now - since, random_states())
            since = now
        self._losses.read()
        check_weights(self.spec, self.network, epoch)
        held_out = assess(self.network, self._validation)
        record = EpochRecord(
            epoch=epoch,
            **self._sums.means(),
            validation_accuracy=accuracy(held_out.logits_NO, self._validation.label_N, self.spec.loss),
            mutual_information=held_out.information.mutual_F.mean().item(),
            category_entropy=held_out.information.category_F.mean().item(),
            spatial_entropy=held_out.information.spatial_F.mean().item(),
            learning_rate=rate,
            seconds=self._sums.seconds + time.monotonic() - since,
        )
        self.records.append(record)
        self._sums = EpochSums()
        return record

    def assigned_categories(self) -> Tensor | None:
        """Return the category that the filter loss assigned to each filter of the top layer: (F,); None without one."""
        layer = self.filter_losses.get(self.network.top_layer)
        return layer.categories.category_F().cpu() if layer else None

    def state_dict(self, *, is_final: bool = False) -> dict[str, Any]:
        """Return everything that the remaining training depends on.

        Call it between two steps or two epochs: an error within a step leaves the step half done.

        Args:
            is_final: leave out what only training needs, and add the mean image that the network's inputs need.

        Raises:
            Diverged: a loss since the last reading is not finite.
        """
        self._losses.read()
        state = {
            NETWORK: self.network.state_dict(),
            FILTER_LOSSES: {name: layer.state_dict() for name, layer in self.filter_losses.items()},
            RECORDS: [asdict(record) for record in self.records],
        }
        if is_final:
            return state | {MEAN_IMAGE: self._train.mean_SS3}
        # Learning rate, order and flips follow from the epoch's number alone.
        return state | {OPTIMISER: self._optimiser.state_dict(), EPOCH_SUMS: self._sums.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state of this job, so that training continues as if it had never been interrupted."""
        self.network.load_state_dict(state[NETWORK])
        for name, layer in self.filter_losses.items():
            layer.load_state_dict(state[FILTER_LOSSES][name])
        self.records = [EpochRecord(**record) for record in state[RECORDS]]
        self._sums = EpochSums()
        if OPTIMISER in state:  # a final state has neither
            self._optimiser.load_state_dict(state[OPTIMISER])
            self._sums = EpochSums.of(state[EPOCH_SUMS], self._train.label_N.device)

    def _step(self, index_B: Indices, flip_B: NDArray[np.bool_], epoch: int, step: int) -> StepRecord:
        label_B = self._train.labels(index_B)
        parts = self._in_parts(index_B, flip_B) if self._micro_batches > 1 else None
        output = parts.forward() if parts else self._forward(index_B, flip_B)
        task = task_loss(output.logits, label_B, self.spec.loss)
        terms = filter_terms(self.filter_losses, output.maps, label_B, epoch)
        losses = {"task": task} | {f"{name} filter": term.loss for name, term in terms.items()}
        self._losses.add(losses, epoch, step)
        self._optimiser.zero_grad(set_to_none=True)
        if parts:
            self._backward_in_parts(parts, output, label_B, terms)
        else:
            self._backward(task, terms)
        if self.spec.train.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.spec.train.max_grad_norm)
        self._optimiser.step()
        return StepRecord(
            task_loss=task.detach().double(),
            filter_loss=_sum((term.loss.detach() for term in terms.values()), like=task),
            lambda_=_sum((term.weight for term in terms.values()), like=task) / max(len(terms), 1),
            mean_peak=layer_peak(output.maps[self.network.top_layer]),
            train_accuracy=accuracy_on_device(output.logits.detach(), label_B, self.spec.loss),
        )

    @property
    def _own_layer_only(self) -> bool:
        return self.spec.filter_loss is not None and self.spec.filter_loss.gradient_scope == "layer"

    def _in_parts(self, index_B: Indices, flip_B: NDArray[np.bool_]) -> PartialBatch:
        def forward(part: slice) -> Output:
            return self._forward(index_B[part], flip_B[part])

        return PartialBatch(self.network, len(index_B), self._micro_batches, forward)

    def _forward(self, index_B: Indices, flip_B: NDArray[np.bool_]) -> Output:
        return forward_head(self.network, self._train.take(index_B, flip_B), self.spec.train.precision)

    def _backward_in_parts(
        self, parts: PartialBatch, output: Output, label_B: Tensor, terms: Mapping[str, FilterTerm]
    ) -> None:
        map_gradients = {name: torch.autograd.grad(term.weighted, output.maps[name])[0] for name, term in terms.items()}
        parts.backward(
            lambda logits_bO, part: task_loss(logits_bO, label_B[part], self.spec.loss),
            map_gradients,
            own_layer_only=self._own_layer_only,
        )

    def _backward(self, task: Tensor, terms: Mapping[str, FilterTerm]) -> None:
        """Compute the gradient of the whole loss (Eq. 3)."""
        if self._own_layer_only:
            own = {name: self._own_gradients(name, term) for name, term in terms.items()}
            task.backward()  # type: ignore[no-untyped-call]
            for name, gradients in own.items():
                for parameter, gradient in zip(self.network.blocks[name].parameters(), gradients, strict=True):
                    parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
            return
        total = task + sum(term.weighted for term in terms.values())
        total.backward()  # type: ignore[no-untyped-call]

    def _own_gradients(self, layer: str, term: FilterTerm) -> tuple[Tensor, ...]:
        parameters = tuple(self.network.blocks[layer].parameters())
        return torch.autograd.grad(term.weighted, parameters, retain_graph=True)


def _sum(scalars: Iterable[Tensor], *, like: Tensor) -> Tensor:
    """Return the sum of scalars in float64; 0 on the device of `like` if there are none."""
    return sum((scalar.double() for scalar in scalars), torch.zeros((), dtype=torch.float64, device=like.device))
