"""What determinism costs, and what compilation and channels last gain, by network; part of `benchmarks.gpu`.

python -m benchmarks.gpu_settings                     # the laptop profile's size, on a CPU or a GPU
python -m benchmarks.gpu_settings --backbone vgg16
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from statistics import median
from typing import get_args

import torch

from benchmarks.gpu_parts import (
    NO_TIME,
    PRECISIONS,
    Row,
    Size,
    epoch_seconds,
    release,
    spec_of,
    train_epoch,
    trainer_of,
)
from interp_model.network import Network, Output
from schemas.job import BackboneName
from workers.training.determinism import choose_device, make_deterministic
from workers.training.trainer import Trainer

BACKBONES: tuple[BackboneName, ...] = get_args(BackboneName)
LAPTOP = Size(images=256, side=128, width=0.25, fc_width=256, batch=32, epochs=3)


def determinism_price(
    device: torch.device, size: Size, is_time_left: Callable[[], bool], backbones: Sequence[BackboneName] = BACKBONES
) -> Iterator[Row]:
    """Seconds of an epoch of each interpretable network with deterministic kernels and with the fastest ones."""
    for backbone in backbones:
        if not is_time_left():
            yield {"backbone": backbone, "note": NO_TIME}
            continue
        spec = spec_of(backbone, "interpretable", frozen=False, size=size)
        free = spec.model_copy(update={"train": spec.train.model_copy(update={"deterministic": False})})
        trainers = [trainer_of(one, size.images, device) for one in (spec, free)]
        for trainer in trainers:
            train_epoch(trainer)
        bound_s, free_s = _in_turn(trainers, size.epochs, device)
        yield {
            "backbone": backbone,
            "deterministic_s": bound_s,
            "free_s": free_s,
            "ratio": bound_s / free_s,
            "note": "",
        }
        del trainers, trainer
        release(device)


def layout_gain(
    device: torch.device, size: Size, is_time_left: Callable[[], bool], backbones: Sequence[BackboneName] = BACKBONES
) -> Iterator[Row]:
    """Seconds of an epoch with channels first, as jobs train, and with channels last, which weights pass on to maps."""
    for backbone, precision in product(backbones, PRECISIONS):
        row: Row = {"backbone": backbone, "precision": precision}
        if not is_time_left():
            yield row | {"note": NO_TIME}
            continue
        spec = spec_of(backbone, "interpretable", frozen=False, size=size, precision=precision)
        trainers = [trainer_of(spec, size.images, device) for _ in range(2)]
        trainers[1].network.to(memory_format=torch.channels_last)
        for trainer in trainers:
            train_epoch(trainer)
        first_s, last_s = _in_turn(trainers, size.epochs, device)
        yield row | {"first_s": first_s, "last_s": last_s, "ratio": last_s / first_s, "note": ""}
        del trainers, trainer
        release(device)


def compile_gain(
    device: torch.device, size: Size, is_time_left: Callable[[], bool], backbones: Sequence[BackboneName] = BACKBONES
) -> Iterator[Row]:
    """Seconds of an epoch with the forward and backward pass as they are and compiled; on a GPU as CUDA graphs.

    The first compiled epoch includes the compilation. Both networks begin with the same weights, so the largest
    difference of a weight after one epoch, relative to the largest weight of its tensor, says whether they agree.
    """
    mode = "reduce-overhead" if device.type == "cuda" else "default"
    for backbone in backbones:
        if not is_time_left():
            yield {"backbone": backbone, "mode": mode, "note": NO_TIME}
            continue
        spec = spec_of(backbone, "interpretable", frozen=False, size=size)
        spec = spec.model_copy(update={"model": spec.model.model_copy(update={"dropout": 0.0})})
        plain, compiled = (trainer_of(spec, size.images, device) for _ in range(2))
        compile_steps(compiled.network, size.batch, mode)
        first_s = epoch_seconds(compiled, device)
        train_epoch(plain)
        difference = largest_difference(plain.network, compiled.network)
        plain_s, compiled_s = _in_turn([plain, compiled], size.epochs, device)
        yield {
            "backbone": backbone, "mode": mode, "plain_s": plain_s, "compiled_s": compiled_s, "first_s": first_s,
            "ratio": compiled_s / plain_s, "difference": difference, "note": "",
        }  # fmt: skip
        del plain, compiled
        torch.compiler.reset()
        release(device)


def compile_steps(network: Network, batch: int, mode: str) -> None:
    """Compile the trained layers for training steps of `batch` images; other calls stay as they are."""
    plain = network.forward_head
    compiled = torch.compile(plain, mode=mode, dynamic=False)

    def forward_head(x: torch.Tensor) -> Output:
        if not network.training or len(x) != batch:
            return plain(x)
        # The memory of the step before may be used again.
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        output: Output = compiled(x)
        return output

    network.forward_head = forward_head  # type: ignore[method-assign]


def largest_difference(one: Network, other: Network) -> float:
    """Return the largest difference of a weight, relative to the largest of its tensor."""
    there = other.state_dict()
    differences = [(value - there[name]).abs().max() / value.abs().max() for name, value in one.state_dict().items()]
    return torch.stack(differences).nan_to_num().max().item()  # a tensor of zeros in both is 0 / 0


def _in_turn(trainers: Sequence[Trainer], epochs: int, device: torch.device) -> list[float]:
    """Return the median seconds of an epoch of each trainer; they train in turn, so that all see the same machine."""
    rounds = [[epoch_seconds(trainer, device) for trainer in trainers] for _ in range(epochs)]
    return [median(column) for column in zip(*rounds, strict=True)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure one network, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", choices=BACKBONES, default="alexnet")
    given = parser.parse_args(arguments)
    device = choose_device()
    make_deterministic(1 if device.type == "cpu" else torch.get_num_threads())
    for part in (determinism_price, layout_gain, compile_gain):
        for row in part(device, LAPTOP, lambda: True, [given.backbone]):
            print(f"{part.__name__}: {row}")


if __name__ == "__main__":
    main()
