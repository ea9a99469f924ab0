"""What `benchmarks.gpu` measures, one function for each part; a row whose turn comes too late says so.

Every part asks `is_time_left` before each measurement, and lists those that it leaves out.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import Any, NamedTuple, get_args

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.metrics import data_of, noise, noise_job, seconds_of, timed
from benchmarks.packs import job_of, largest_difference
from interp_model.network import build_network
from schemas.job import BackboneName, JobSpec
from schemas.training_spec import Precision
from workers.training.determinism import seed_torch
from workers.training.inputs import Inputs
from workers.training.pack_probe import batches_of, measure
from workers.training.trainer import Trainer

Row = dict[str, Any]
NO_TIME = "no time left"


class Deadline:
    """Says whether a part may begin its next measurement: if one as long as the last would end in time.

    Args:
        end: when the part has to be over, on the clock.
        first: seconds that the first measurement is expected to take.
        clock: returns seconds.
    """

    def __init__(self, end: float, first: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._end = end
        self._clock = clock
        self._began: float | None = None
        self._last = first

    def __call__(self) -> bool:
        """Return whether there is time; the measurement then begins now, and the one before it has ended."""
        now = self._clock()
        if self._began is not None:
            self._last = now - self._began
        has_time = now + self._last < self._end
        self._began = now if has_time else None
        return has_time


class Size(NamedTuple):
    """How much is measured."""

    images: int
    side: int
    width: float
    fc_width: int
    batch: int
    epochs: int
    """Measured epochs of each network; the median counts."""


GPU = Size(images=512, side=224, width=1.0, fc_width=4096, batch=64, epochs=3)
SMALL = Size(images=12, side=96, width=0.125, fc_width=64, batch=6, epochs=2)


PACKED = 8
"""Networks that are trained as one."""
PRECISIONS = get_args(Precision)


def spec_of(backbone: BackboneName, variant: str, frozen: bool, size: Size, precision: str = "float32") -> JobSpec:
    """A job of one category on generated noise; `variant` may also be `plain`: interpretable layers without the method.

    `plain` keeps the new convolution and drops masks and filter losses, so that the difference is the method's cost.
    """
    is_plain = variant == "plain"
    return JobSpec.model_validate(
        {
            "data": {"categories": ["voc_part/cat"], "train_per_category": 2, "test_per_category": 2},
            "model": {
                "backbone": backbone,
                "variant": "ordinary" if variant == "ordinary" else "interpretable",
                "width": size.width,
                "input_size": size.side,
                "fc_width": size.fc_width,
                "mask": not is_plain,
            },
            "filter_loss": {} if variant == "interpretable" else None,
            "train": {
                "epochs": 4,
                "batch_size": size.batch,
                "learning_rate": 1e-5,
                "freeze_below": "top_conv" if frozen else None,
                "precision": precision,
            },
        }
    )


def trainer_of(spec: JobSpec, images: int, device: torch.device, *, keep: bool = False) -> Trainer:
    """A trainer on noise, seeded; `keep` computes the features of frozen layers once, as jobs do."""
    seed_torch(spec.seed, 0, "weights")
    network = build_network(spec.model, spec.n_outputs, from_scratch=True)
    if spec.train.freeze_below is not None:
        network.freeze_below(spec.train.freeze_below)
    network.to(device)
    data = data_of(spec, noise(images, spec.model.input_size))
    inputs = Inputs(network, data.train, data.mean_SS3, device)
    if keep:
        inputs.keep_features(horizontal_flip=spec.train.horizontal_flip, report=_ignore)
    return Trainer(spec, network, inputs, inputs)


def throughput(device: torch.device, size: Size, is_time_left: Callable[[], bool]) -> Iterator[Row]:
    """Training throughput of every backbone, images/s: ordinary, plain and interpretable, whole and frozen.

    `of_product` is the share of the rate of one large matrix product.
    """
    best = product_rates(device, size)
    for backbone in get_args(BackboneName):
        for frozen in (False, True):
            for precision in PRECISIONS:
                for variant in ("ordinary", "plain", "interpretable"):
                    row: Row = {"backbone": backbone, "variant": variant, "precision": precision}
                    row["trained"] = "top" if frozen else "all layers"
                    if not is_time_left():
                        yield row | {"images_per_s": None, "tflop_per_s": None, "note": NO_TIME}
                        continue
                    spec = spec_of(backbone, variant, frozen, size, precision)
                    trainer = trainer_of(spec, size.images, device, keep=frozen)
                    train_epoch(trainer)  # warms up: kernels are chosen, memory is reserved
                    seconds = median([epoch_seconds(trainer, device) for _ in range(size.epochs)])
                    rates = {"images_per_s": size.images / seconds, "tflop_per_s": _epoch_tflop(trainer) / seconds}
                    yield row | rates | {"of_product": rates["tflop_per_s"] / best[precision], "note": ""}
                    del trainer
                    release(device)


def product_rates(device: torch.device, size: Size) -> Row:
    """Rate of one large matrix product in TFLOP/s by precision: what the device gives at best."""
    side = 8192 if device.type == "cuda" and size.width == 1 else 512

    def rate(name: str) -> float:
        square = torch.randn(side, side, device=device, dtype=getattr(torch, name))
        seconds = min(seconds_of(lambda: torch.mm(square, square), device) for _ in range(4))
        return 2 * side**3 / seconds / 1e12

    return {name: rate(name) for name in PRECISIONS}


def method_cost(rows: Sequence[Row]) -> list[Row]:
    """Time of an interpretable network's epoch over that of the same network without masks and filter losses."""
    kind = ("backbone", "trained", "precision")
    rate = {
        (*(row[name] for name in kind), row["variant"]): row["images_per_s"] for row in rows if row.get("images_per_s")
    }
    return [
        {**dict(zip(kind, case, strict=True)), "ratio": rate[*case, "plain"] / value}
        for (*case, variant), value in rate.items()
        if variant == "interpretable" and (*case, "plain") in rate
    ]


def precision_gain(rows: Sequence[Row]) -> list[Row]:
    """Time of a network's epoch with bfloat16 over that with float32."""
    kind = ("backbone", "trained", "variant")
    rate = {
        (*(row[name] for name in kind), row["precision"]): row["images_per_s"]
        for row in rows
        if row.get("images_per_s")
    }
    return [
        {**dict(zip(kind, case, strict=True)), "ratio": rate[*case, "float32"] / value}
        for (*case, precision), value in rate.items()
        if precision == "bfloat16" and (*case, "float32") in rate
    ]


def metrics_cost(device: torch.device, size: Size, is_time_left: Callable[[], bool]) -> Iterator[Row]:
    """Seconds of everything that a finished job measures, beside its forward passes and a training epoch."""
    for backbone in get_args(BackboneName):
        if not is_time_left():
            yield {"backbone": backbone, "note": NO_TIME}
            continue
        spec = spec_of(backbone, "interpretable", frozen=False, size=size)
        found = timed(noise_job(spec, size.images, device), device, 1, fields=False)
        passes, metrics, epoch = (found[name] for name in ("forward passes", "all measures", "a training epoch"))
        times = {"epoch_s": epoch, "passes_s": passes, "metrics_s": metrics}
        yield {"backbone": backbone, **times, "epochs": metrics / epoch, "passes": metrics / passes, "note": ""}
        release(device)


def packs_gain(device: torch.device, size: Size, is_time_left: Callable[[], bool]) -> Iterator[Row]:
    """Seconds of one step of several networks of one kind, trained from the top layer on: one by one, and as one."""
    for backbone in get_args(BackboneName):
        if not is_time_left():
            yield {"backbone": backbone, "note": NO_TIME}
            continue
        model = spec_of(backbone, "interpretable", frozen=True, size=size).model
        batches = batches_of(job_of(model, size.batch), PACKED, device)
        difference = largest_difference(batches)
        times = measure(batches, size.epochs, device)
        yield {
            "backbone": backbone, "networks": PACKED, **times._asdict(), "ratio": times.packed / times.alone,
            "difference": difference, "note": "",
        }  # fmt: skip
        release(device)


def resume(device: torch.device) -> Row:
    """Whether training that was interrupted in an epoch and went on from its saved state ends with the same bits."""
    spec = spec_of("alexnet", "interpretable", frozen=False, size=SMALL)
    spec = spec.model_copy(update={"model": spec.model.model_copy(update={"dropout": 0.5})})
    straight = trainer_of(spec, SMALL.images, device)
    for _ in range(spec.train.epochs):
        train_epoch(straight)
    first = trainer_of(spec, SMALL.images, device)
    train_epoch(first)
    _interrupt(first)
    saved = io.BytesIO()
    torch.save(first.state_dict(), saved)
    saved.seek(0)
    second = trainer_of(spec, SMALL.images, device)
    second.load_state_dict(torch.load(saved, map_location="cpu", weights_only=True))  # as a job does
    while second.epoch < spec.train.epochs:
        train_epoch(second)
    differ = [
        name
        for name, value in straight.network.state_dict().items()
        if not torch.equal(value, second.network.state_dict()[name])
    ]
    return {"is_bit_identical": not differ, "differ": differ, "interrupted_at": "epoch 2, after its first step"}


class _Interruption(Exception):
    """Raised before a step, as a worker that is asked to stop does."""


def _interrupt(trainer: Trainer) -> None:
    """Train one step of the next epoch and stop there."""
    steps = iter(range(1))

    def on_step() -> None:
        if next(steps, None) is None:
            raise _Interruption

    try:
        trainer.run_epoch(on_step=on_step)
    except _Interruption:
        return


def train_epoch(trainer: Trainer) -> None:
    """Train one epoch."""
    trainer.run_epoch(on_step=lambda: None)


def epoch_seconds(trainer: Trainer, device: torch.device) -> float:
    """Train one epoch; return the seconds that it took."""
    return seconds_of(lambda: train_epoch(trainer), device)


def _epoch_tflop(trainer: Trainer) -> float:
    """10^12 floating-point operations of an epoch, validation included: torch counts convolutions, matrix products."""
    with FlopCounterMode(display=False) as counter:
        train_epoch(trainer)
    return float(counter.get_total_flops()) / 1e12


def release(device: torch.device) -> None:
    """Give memory that is no longer used back to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _ignore(_: str) -> None:
    return None
