"""The training loop: task loss plus lambda times the filter loss, resumable between any two steps.

Shape legend: N images   B images of a batch   O outputs   F filters   H = W = map side.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from interp_model.backbones import scaled_channels, top_conv
from interp_model.loss.filter_loss import FilterLoss, lambda_at, mean_peak
from interp_model.metrics.accuracy import accuracy, binary_targets
from interp_model.network import Network, Output, parameter_groups
from schemas.errors import Diverged
from schemas.job import JobSpec, LossKind, TrainSpec
from workers.training.determinism import generator, seed_torch
from workers.training.filter_information import look
from workers.training.inputs import Indices, Inputs
from workers.training.micro_batches import PartialBatch
from workers.training.starting_weights import MEAN_IMAGE, NETWORK


@dataclass(frozen=True)
class EpochRecord:
    """What an epoch did; losses and the mean peak are means over its images."""

    epoch: int
    task_loss: float
    filter_loss: float
    """Summed over the interpretable layers, before lambda."""
    lambda_: float
    """Mean over layers and batches."""
    mean_peak: float
    """mean_x max_ij x_ij of the measured layer, before masking."""
    train_accuracy: float
    """Of the training batches as they were seen: augmented, and with dropout."""
    validation_accuracy: float
    learning_rate: float
    seconds: float
    mutual_information: float | None = None
    """Of the measured layer's filters on held-out images (Eq. 1), and the entropies that take it from H(T) (Eq. 5), in
    nats; means over the filters. None in records of older versions."""
    category_entropy: float | None = None
    spatial_entropy: float | None = None


def task_loss(logits_BO: Tensor, label_B: Tensor, loss: LossKind) -> Tensor:
    """Logistic log loss summed over the outputs, or cross entropy (Sec. 5.1); the mean over the images."""
    if loss == "softmax":
        return functional.cross_entropy(logits_BO, label_B)
    sign_BO = binary_targets(label_B, logits_BO.shape[1]).to(logits_BO.dtype) * 2 - 1  # y* in {+1, -1}
    return functional.softplus(-sign_BO * logits_BO).sum(dim=1).mean()  # log(1 + exp(-y x y*)), never an infinity


def learning_rate_at(train: TrainSpec, epoch: int) -> float:
    """Log-spaced from the first to the final rate over `decay_epochs`, then held; the first epoch is 1."""
    if train.final_learning_rate is None:
        return train.learning_rate
    last = (train.decay_epochs or train.epochs) - 1
    done = min((epoch - 1) / last, 1.0) if last else float(epoch > 1)
    return math.exp((1 - done) * math.log(train.learning_rate) + done * math.log(train.final_learning_rate))


def batches_of_epoch(n_images: int, batch_size: int, seed: int, epoch: int) -> list[Indices]:
    """Every image once, shuffled, in batches of nearly equal size and never of one image alone."""
    order = generator(seed, epoch, "order").permutation(n_images)
    count = max(1, min(math.ceil(n_images / batch_size), n_images // 2))
    return np.array_split(order, count)


class Trainer:
    """One network on its way from epoch 0 to the last; its state is all that the rest of the way depends on."""

    def __init__(
        self, spec: JobSpec, network: Network, train: Inputs, validation: Inputs, *, micro_batches: int = 1
    ) -> None:
        """
        Args:
            micro_batches: into how many parts each batch is cut, so that it takes less memory.
        """
        self.spec = spec
        self.network = network
        self.filter_losses = _filter_losses(spec, network, train.label_N.device)
        self.records: list[EpochRecord] = []
        self._train = train
        self._validation = validation
        self._micro_batches = micro_batches
        self._begun = _Begun()
        self._optimiser = torch.optim.SGD(
            [dict(group) for group in parameter_groups(network, spec.train)],
            lr=spec.train.learning_rate,
            momentum=spec.train.momentum,
        )

    @property
    def epoch(self) -> int:
        """How many epochs are done."""
        return len(self.records)

    @property
    def step(self) -> int:
        """How many batches of the epoch that is going on are done."""
        return self._begun.steps

    def run_epoch(self, on_step: Callable[[], None]) -> EpochRecord:
        """Train on every image once, or on those that are left of an epoch that was begun; then look at the
        validation images.

        Args:
            on_step: called before every batch. When it raises, the epoch stands where it is: `state` may be saved, and
                the next call goes on.

        Raises:
            Diverged: a loss or a weight is not finite.
        """
        epoch, train, seed = self.epoch + 1, self.spec.train, self.spec.seed
        rate = learning_rate_at(train, epoch)
        for group in self._optimiser.param_groups:
            group["lr"] = rate * group["rate"]
        batches = batches_of_epoch(len(self._train), train.batch_size, seed, epoch)
        mirror = generator(seed, epoch, "mirror")
        mirrored = [mirror.random(len(index_B)) < (0.5 if train.horizontal_flip else 0.0) for index_B in batches]
        if self._begun.random is None:
            seed_torch(seed, epoch, "dropout")
        else:
            _set_random_states(self._begun.random)
        self.network.train()
        since = time.monotonic()
        for step in range(self.step, len(batches)):
            on_step()
            done = self._step(batches[step], mirrored[step], epoch, step + 1)
            now = time.monotonic()
            self._begun.add(done, len(batches[step]), now - since, _random_states())
            since = now
        self._check_weights(epoch)
        seen = look(self.network, self._validation)
        record = EpochRecord(
            epoch=epoch,
            **self._begun.means(),
            validation_accuracy=accuracy(seen.logits_NO, self._validation.label_N, self.spec.loss),
            mutual_information=seen.told.mutual_F.mean().item(),
            category_entropy=seen.told.category_F.mean().item(),
            spatial_entropy=seen.told.spatial_F.mean().item(),
            learning_rate=rate,
            seconds=self._begun.seconds + time.monotonic() - since,
        )
        self.records.append(record)
        self._begun = _Begun()
        return record

    def assigned_categories(self) -> Tensor | None:
        """Which category each filter of the top layer was trained to mark; None where no filter loss assigned any."""
        layer = self.filter_losses.get(self.network.top_layer)
        return layer.categories.category_F().cpu() if layer else None

    def state_dict(self, *, is_final: bool = False) -> dict[str, Any]:
        """Everything that the rest of the way depends on; a final state leaves out what only training needs, and has
        what the network wants done to an image.

        To be taken between two steps or two epochs: an error in the middle of a step leaves half of it done.
        """
        state = {
            NETWORK: self.network.state_dict(),
            "filter_losses": {name: layer.state_dict() for name, layer in self.filter_losses.items()},
            "records": [asdict(record) for record in self.records],
        }
        if not is_final:
            # The learning rate, the order and the mirroring follow from the epoch's number alone; of an epoch that is
            # going on there are the sums of its record, and how far dropout's draws have come.
            state |= {"optimiser": self._optimiser.state_dict(), "begun": asdict(self._begun)}
        else:
            state[MEAN_IMAGE] = self._train.mean_SS3
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of this job, as if never interrupted."""
        self.network.load_state_dict(state[NETWORK])
        for name, layer in self.filter_losses.items():
            layer.load_state_dict(state["filter_losses"][name])
        self.records = [EpochRecord(**record) for record in state["records"]]
        if "optimiser" in state:
            self._optimiser.load_state_dict(state["optimiser"])
        self._begun = _Begun(**state.get("begun", {}))

    def _step(self, index_B: Indices, mirrored_B: np.ndarray[Any, np.dtype[np.bool_]], epoch: int, step: int) -> _Step:
        label_B = self._train.label_N[torch.from_numpy(index_B).to(self._train.label_N.device)]
        parts = self._in_parts(index_B, mirrored_B) if self._micro_batches > 1 else None
        output = parts.look() if parts else self.network.forward_head(self._train.take(index_B, mirrored_B))
        task = task_loss(output.logits, label_B, self.spec.loss)
        terms = self._filter_terms(output, label_B, epoch)
        values = {"task": task.item()} | {f"{name} filter": term.loss.item() for name, term in terms.items()}
        self._check_losses(values, epoch, step)
        self._optimiser.zero_grad(set_to_none=True)
        if parts:
            self._backward_in_parts(parts, output, label_B, terms)
        else:
            self._backward(task, terms)
        if self.spec.train.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.spec.train.max_grad_norm)
        self._optimiser.step()
        return _Step(
            task_loss=values["task"],
            filter_loss=sum(value for name, value in values.items() if name != "task"),
            lambda_=sum(term.weight for term in terms.values()) / max(len(terms), 1),
            mean_peak=_peak_of_layer(output.maps[self.network.top_layer]),
            train_accuracy=accuracy(output.logits.detach(), label_B, self.spec.loss),
        )

    def _filter_terms(self, output: Output, label_B: Tensor, epoch: int) -> dict[str, _Term]:
        return {
            name: _Term(
                loss=layer(output.maps[name], label_B),
                weight=lambda_at(layer.spec, epoch, _peak_of_layer(output.maps[name])),
            )
            for name, layer in self.filter_losses.items()
        }

    @property
    def _own_layer_only(self) -> bool:
        return self.spec.filter_loss is not None and self.spec.filter_loss.gradient_scope == "layer"

    def _in_parts(self, index_B: Indices, mirrored_B: np.ndarray[Any, np.dtype[np.bool_]]) -> PartialBatch:
        def take(part: slice) -> Tensor:
            return self._train.take(index_B[part], mirrored_B[part])

        return PartialBatch(self.network, len(index_B), self._micro_batches, take)

    def _backward_in_parts(
        self, parts: PartialBatch, output: Output, label_B: Tensor, terms: Mapping[str, _Term]
    ) -> None:
        pull_of = {
            name: torch.autograd.grad(term.weight * term.loss, output.maps[name])[0] for name, term in terms.items()
        }
        parts.backward(
            lambda logits_bO, part: task_loss(logits_bO, label_B[part], self.spec.loss),
            pull_of,
            own_layer_only=self._own_layer_only,
        )

    def _backward(self, task: Tensor, terms: Mapping[str, _Term]) -> None:
        if self._own_layer_only:
            own = {name: self._own_gradients(name, term) for name, term in terms.items()}
            task.backward()  # type: ignore[no-untyped-call]
            for name, gradients in own.items():
                for parameter, gradient in zip(self.network.blocks[name].parameters(), gradients, strict=True):
                    parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
            return
        total = task + sum(term.weight * term.loss for term in terms.values())
        total.backward()  # type: ignore[no-untyped-call]

    def _own_gradients(self, layer: str, term: _Term) -> tuple[Tensor, ...]:
        parameters = tuple(self.network.blocks[layer].parameters())
        return torch.autograd.grad(term.weight * term.loss, parameters, retain_graph=True)

    def _check_losses(self, values: Mapping[str, float], epoch: int, step: int) -> None:
        for name, value in values.items():
            if not math.isfinite(value):
                raise Diverged(
                    f"The {name} loss of {self.spec.title} is {value} in epoch {epoch}, step {step}. "
                    f"Lower `train.learning_rate` ({self.spec.train.learning_rate})"
                    f"{_or_lower_weight(self.spec)}, or set `train.max_grad_norm`."
                )

    def _check_weights(self, epoch: int) -> None:
        for name, parameter in self.network.named_parameters():
            if not bool(torch.isfinite(parameter).all()):
                raise Diverged(
                    f"The weights {name} of {self.spec.title} are not finite after epoch {epoch}. "
                    f"Lower `train.learning_rate` ({self.spec.train.learning_rate})"
                    f"{_or_lower_weight(self.spec)}, or set `train.max_grad_norm`."
                )


@torch.no_grad()
def predict(network: Network, inputs: Inputs) -> Tensor:
    """Logits of all images, none mirrored: (N, O)."""
    network.eval()
    return torch.cat([network.forward_head(inputs.as_they_are(index_B)).logits for index_B in inputs.batches()])


@dataclass(frozen=True)
class _Term:
    """lambda_t * loss of one interpretable layer."""

    loss: Tensor
    weight: float


@dataclass(frozen=True)
class _Step:
    task_loss: float
    filter_loss: float
    lambda_: float
    mean_peak: float
    train_accuracy: float


@dataclass
class _Begun:
    """How far an epoch has come: sums over its images of what its steps report, and dropout's draws."""

    steps: int = 0
    images: int = 0
    totals: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    random: dict[str, Any] | None = None
    """States of torch's generators after the last step; None before the first."""

    def add(self, step: _Step, images: int, seconds: float, random: dict[str, Any]) -> None:
        for name, value in vars(step).items():
            self.totals[name] = self.totals.get(name, 0.0) + value * images
        self.images += images
        self.steps += 1
        self.seconds += seconds
        self.random = random

    def means(self) -> dict[str, float]:
        return {name: total / self.images for name, total in self.totals.items()}


def _filter_losses(spec: JobSpec, network: Network, device: torch.device) -> dict[str, FilterLoss]:
    if spec.filter_loss is None:
        return {}
    filters = scaled_channels(top_conv(spec.model.backbone), spec.model.width)
    return {
        name: FilterLoss(spec.filter_loss, network.map_side(name), filters, spec.n_outputs).to(device)
        for name in network.interpretable_layers
    }


def _peak_of_layer(x_NFHW: Tensor) -> float:
    return mean_peak(x_NFHW.detach()).mean().item()


def _or_lower_weight(spec: JobSpec) -> str:
    return f" or `filter_loss.weight` ({spec.filter_loss.weight})" if spec.filter_loss else ""


def _random_states() -> dict[str, Any]:
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "gpus": gpus}


def _set_random_states(states: Mapping[str, Any]) -> None:
    torch.set_rng_state(states["cpu"])
    if len(states["gpus"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["gpus"])
