"""The training loop: task loss plus lambda times the filter loss, resumable between any two steps.

Shape legend: B images of a batch   F filters.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from interp_model.metrics.accuracy import accuracy, chance_level
from interp_model.network import Network, Output
from interp_model.parameter_groups import parameter_groups
from schemas.job import JobSpec
from workers.training.determinism import OwnRandomness, kernels, random_states, seeded
from workers.training.divergence import LossWatch, check_weights
from workers.training.filter_information import assess
from workers.training.gradients import Batch, Step, of_parts, of_whole_batch
from workers.training.inputs import Indices, Inputs
from workers.training.losses import build_filter_losses
from workers.training.micro_batches import PartialBatch, dropout_masks
from workers.training.packs import Pack
from workers.training.precision import forward_head
from workers.training.records import EpochRecord, EpochSums, StepRecord
from workers.training.schedule import batches_of_epoch, flips_of_epoch, learning_rate_at
from workers.training.stacked import can_stack
from workers.training.starting_weights import MEAN_IMAGE, NETWORK

_LOGGER = logging.getLogger("orch.job")

OPTIMISER, FILTER_LOSSES, RECORDS, EPOCH_SUMS = "optimiser", "filter_losses", "records", "epoch_sums"
IN_PACK = "in_pack"
"""Keys of a trainer's state beside those of the network and the mean image."""


class Trainer:
    """Trains one network; everything that the remaining training depends on is in `state_dict`."""

    def __init__(
        self,
        spec: JobSpec,
        network: Network,
        train: Inputs,
        validation: Inputs,
        *,
        micro_batches: int = 1,
        pack: Pack | None = None,
    ) -> None:
        """Build the losses and the optimiser of a network.

        Args:
            spec: the job.
            network: the network to train, with its starting weights and on its device.
            train: images to train on.
            validation: images to measure after each epoch.
            micro_batches: parts that each batch is cut into to save memory.
            pack: the jobs of this process that may train as one network with this one; None trains it alone.
        """
        self.spec = spec
        self.network = network
        self.filter_losses = build_filter_losses(spec, network, train.label_N.device)
        self.records: list[EpochRecord] = []
        self.in_pack = False
        """Whether a step was computed together with other jobs, in this attempt or an earlier one."""
        self._is_told = False
        """Whether the log of this attempt says so."""
        self._train = train
        self._validation = validation
        self._micro_batches = micro_batches
        self._pack = pack if micro_batches == 1 and can_stack(network) else None
        self._randomness = OwnRandomness(random_states())
        self._sums = EpochSums()
        self._losses = LossWatch(spec, train.label_N.device)
        # One kernel instead of three. On a CPU it gains little with small networks, and changes the last bits.
        self._fused = train.label_N.device.type == "cuda" or None
        self._optimiser = torch.optim.SGD(
            [dict(group) for group in parameter_groups(network, spec.train)],
            lr=spec.train.learning_rate,
            momentum=spec.train.momentum,
            fused=self._fused,
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
        self._randomness = self._randomness_of(epoch)
        self.network.train()
        since = time.monotonic()
        with self._pack.taking_part(self) if self._pack else nullcontext():
            for step in range(self.step, len(batches)):
                on_step()
                with kernels(deterministic=train.deterministic):
                    done = self._step(batches[step], flips[step], epoch, step + 1)
                now = time.monotonic()
                self._sums.add(done, len(batches[step]), now - since, self._randomness.states)
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
            IN_PACK: self.in_pack,
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
        self.in_pack = state.get(IN_PACK, False)
        self._sums = EpochSums()
        if OPTIMISER in state:  # a final state has neither
            self._optimiser.load_state_dict(state[OPTIMISER])
            for group in self._optimiser.param_groups:
                group["fused"] = self._fused  # the checkpoint may be that of another kind of device
            self._sums = EpochSums.of(state[EPOCH_SUMS], self._train.label_N.device)

    def _randomness_of(self, epoch: int) -> OwnRandomness:
        """Return the generators' states of the next step."""
        if self._sums.random_states is not None:
            return OwnRandomness(self._sums.random_states)
        with seeded(self.spec.seed, epoch, "dropout"):
            return OwnRandomness(random_states())

    def _step(self, index_B: Indices, flip_B: NDArray[np.bool_], epoch: int, step: int) -> StepRecord:
        self._optimiser.zero_grad(set_to_none=True)
        done = self._gradients(index_B, flip_B, epoch)
        self._losses.add(done.losses, epoch, step)
        if self.spec.train.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.spec.train.max_grad_norm)
        self._optimiser.step()
        return done.record

    def _gradients(self, index_B: Indices, flip_B: NDArray[np.bool_], epoch: int) -> Step:
        batch = Batch(self.spec, self.network, self.filter_losses, self._train.labels(index_B), epoch)
        if self._micro_batches > 1:
            with self._randomness.drawing():
                parts = self._in_parts(index_B, flip_B)
            return of_parts(batch, parts)
        batch = replace(batch, x_B=self._train.take(index_B, flip_B))
        if self._pack is None:
            with self._randomness.drawing():
                return of_whole_batch(batch)
        with self._randomness.drawing():
            batch = replace(batch, masks=dropout_masks(self.network, len(index_B)))
        found = self._pack.step(self, batch)
        if found is None:
            self._optimiser.zero_grad(set_to_none=True)  # those of an attempt to stack that failed
            return of_whole_batch(batch)
        if not self._is_told:
            self.in_pack = self._is_told = True
            _LOGGER.info("training as one network with other jobs of this process")
        return found

    def _in_parts(self, index_B: Indices, flip_B: NDArray[np.bool_]) -> PartialBatch:
        def forward(part: slice) -> Output:
            x_b = self._train.take(index_B[part], flip_B[part])
            return forward_head(self.network, x_b, self.spec.train.precision)

        return PartialBatch(self.network, len(index_B), self._micro_batches, forward)
