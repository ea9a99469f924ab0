"""The interpretable layer beside the same equations written out: every template product kept, loops in Python.

The reference multiplies each map by every template of its filter and keeps the products (Eq. 2 as printed), one filter
after the other, and masks one image after the other. This is how public PyTorch versions of the layer are written. Both
compute Loss_f = -MI(X; T) (Eq. 1) with its full gradient, and the masked maps; their results are compared first.

Each is measured in a process of its own: seconds (of CPU on a CPU) of one forward and backward pass, and the memory
that it takes on top of what the process had before. Target: 10 times as fast, a tenth of the memory.

    python -m benchmarks.reference_layer [--images 32] [--filters 512] [--side 14] [--repeats 3] [--threads 1]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple, Self

import psutil
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from benchmarks.metrics import seconds_of
from interp_model.loss.mutual_information import mutual_information
from interp_model.mask import apply_mask, peak_index
from interp_model.templates import make_templates, mask_bank, template_prior

TARGET = 10.0
TOLERANCE = 1e-8
"""Largest difference of results and gradients in float64, relative to their largest value."""
KINDS = ("reference", "ours")


class Size(NamedTuple):
    """Size of a layer's maps in a batch."""

    images: int
    filters: int
    side: int


class Measured(BaseModel):
    """What one process measured."""

    model_config = ConfigDict(frozen=True)

    seconds: float
    megabytes: float


def reference(x_NFHW: Tensor, t_THW: Tensor, bank_PHW: Tensor, prior_T: Tensor) -> tuple[Tensor, Tensor]:
    """Return the filter losses, (F,), and the masked maps, as the equations are printed."""
    losses = []
    for x_NHW in x_NFHW.unbind(1):
        products_NTHW = x_NHW[:, None] * t_THW
        strength_NT = products_NTHW.sum(dim=(2, 3)).exp()
        given_NT = strength_NT / strength_NT.sum(dim=0)  # Eq. 2
        image_N1 = (prior_T * given_NT).sum(dim=1, keepdim=True)
        losses.append(-(prior_T * given_NT * (given_NT / image_N1).log()).sum())  # Eq. 1
    masked = []
    for x_FHW in x_NFHW.unbind(0):
        rows = [x_HW * bank_PHW[int(x_HW.argmax())] for x_HW in x_FHW.unbind(0)]
        masked.append(torch.stack(rows))
    return torch.stack(losses), torch.stack(masked)


def ours(x_NFHW: Tensor, t_THW: Tensor, bank_PHW: Tensor, prior_T: Tensor) -> tuple[Tensor, Tensor]:
    """Return the same with the project's functions."""
    return -mutual_information(x_NFHW, t_THW, prior_T), apply_mask(x_NFHW, bank_PHW, peak_index(x_NFHW.detach()))


def step(kind: str, x_NFHW: Tensor) -> tuple[Tensor, Tensor]:
    """Run one forward and backward pass; return the losses, (F,), and the gradient of the maps."""
    side = x_NFHW.shape[-1]
    parts = (part.to(x_NFHW) for part in (make_templates(side), mask_bank(side), template_prior(side)))
    compute = reference if kind == "reference" else ours
    loss_F, masked_NFHW = compute(x_NFHW, *parts)
    (grad_NFHW,) = torch.autograd.grad(loss_F.sum() + masked_NFHW.square().sum(), x_NFHW)
    return loss_F.detach(), grad_NFHW


def maps(size: Size, device: torch.device) -> Tensor:
    """Return random maps after ReLU."""
    generator = torch.Generator().manual_seed(0)
    x_NFHW = torch.randn(size.images, size.filters, size.side, size.side, generator=generator).relu()
    return x_NFHW.to(device).requires_grad_()


def largest_difference(size: Size, device: torch.device) -> float:
    """Return the largest difference of results and gradients in float64, relative to the largest value."""
    x_NFHW = maps(size, device).detach().double().requires_grad_()
    pairs = zip(step("reference", x_NFHW), step("ours", x_NFHW), strict=True)
    return max(((a - b).abs().max() / a.abs().max()).item() for a, b in pairs)


def measure(kind: str, size: Size, repeats: int, device: torch.device) -> Measured:
    """Measure one of the two in this process, after one pass on few filters to load what torch loads once."""
    x_NFHW = maps(size, device)
    step(kind, maps(size._replace(filters=2), device))
    before = used_bytes(device)
    with HighestUse(device) as use:
        seconds = [seconds_of(lambda: step(kind, x_NFHW), device) for _ in range(repeats)]
    return Measured(seconds=median(seconds), megabytes=(use.highest - before) / 1e6)


def used_bytes(device: torch.device) -> int:
    """Return the memory that the process uses, on a GPU that of its tensors."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else psutil.Process().memory_info().rss


class HighestUse:
    """Context that looks at the used memory every millisecond and keeps the highest value, in bytes."""

    def __init__(self, device: torch.device) -> None:
        self.highest = 0
        self._device = device
        self._has_ended = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._has_ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._has_ended.wait(0.001):
            self.highest = max(self.highest, used_bytes(self._device))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--filters", type=int, default=512)
    parser.add_argument("--side", type=int, default=14)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--kind", choices=KINDS, help="Measure one of them in this process.")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    size = Size(options.images, options.filters, options.side)
    if options.kind:
        print(measure(options.kind, size, options.repeats, device).model_dump_json())
        return
    difference = largest_difference(size._replace(filters=min(size.filters, 32)), device)
    if difference > TOLERANCE:
        raise SystemExit(f"the two do not agree: they differ by {difference:.1e} of the largest value")
    given = [f"--{name}={getattr(options, name)}" for name in ("images", "filters", "side", "repeats", "threads")]
    found = {}
    for kind in KINDS:
        command = [sys.executable, "-m", "benchmarks.reference_layer", *given, "--kind", kind]
        answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        found[kind] = Measured.model_validate_json(answer)
    print(f"{size.images} images, {size.filters} filters, maps of {size.side} x {size.side}, on {device.type}")
    print(f"results and gradients agree in float64 within {difference:.0e} of the largest value\n")
    for kind in KINDS:
        print(f"{kind:>10}: {found[kind].seconds:8.3f} s, {found[kind].megabytes:8.0f} MB")
    for what in ("seconds", "megabytes"):
        ratio = getattr(found["reference"], what) / getattr(found["ours"], what)
        print(f"{'ratio':>10}: {ratio:.1f} in {what} (target: at least {TARGET:g})")


if __name__ == "__main__":
    main()
