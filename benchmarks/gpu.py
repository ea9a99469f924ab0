"""Everything that a GPU is asked once it is there: tests, throughput, the cost of the method, and exact resumption.

    python -m benchmarks.gpu --out DIR            # on a GPU: within eight minutes
    python -m benchmarks.gpu --out DIR --small    # the same on a CPU in about three minutes, so that it does not rot

Needs Python, torch and the project's light dependencies: no Ray, no MLflow, no data. Writes `gpu.json` and `gpu.md`
into DIR. A part that fails is reported with its error, and the others run.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import platform
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.metrics import data_of, noise, seconds_of
from benchmarks.packs import times_of
from interp_model.network import build_network
from schemas.job import BackboneName, JobSpec
from schemas.training_spec import Precision
from workers.evaluation.evaluate import evaluate
from workers.training.determinism import choose_device, make_deterministic, seed_torch
from workers.training.inputs import Inputs
from workers.training.trainer import Trainer

BUDGET_SECONDS = 480.0
"""After so many seconds no further measurement begins."""
TEST_SECONDS = 120.0

Row = dict[str, Any]


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
    """Training throughput of every backbone, images/s: ordinary, plain and interpretable, whole and frozen."""
    for backbone in get_args(BackboneName):
        for frozen in (False, True):
            for precision in PRECISIONS:
                for variant in ("ordinary", "plain", "interpretable"):
                    row: Row = {"backbone": backbone, "variant": variant, "precision": precision}
                    row["trained"] = "top" if frozen else "all layers"
                    if not is_time_left():
                        yield row | {"images_per_s": None, "tflop_per_s": None, "note": "no time left"}
                        continue
                    spec = spec_of(backbone, variant, frozen, size, precision)
                    trainer = trainer_of(spec, size.images, device, keep=frozen)
                    _epoch(trainer)  # warms up: kernels are chosen, memory is reserved
                    seconds = median([_epoch_seconds(trainer, device) for _ in range(size.epochs)])
                    rates = {"images_per_s": size.images / seconds, "tflop_per_s": _epoch_tflop(trainer) / seconds}
                    yield row | rates | {"note": ""}
                    del trainer
                    _free(device)


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
    rate = {(*(row[name] for name in kind), row["variant"]): row["images_per_s"] for row in rows if row["images_per_s"]}
    return [
        {**dict(zip(kind, case, strict=True)), "ratio": rate[*case, "plain"] / value}
        for (*case, variant), value in rate.items()
        if variant == "interpretable" and (*case, "plain") in rate
    ]


def metrics_cost(device: torch.device, size: Size) -> Row:
    """Seconds of everything that a finished VGG-16 job measures, beside one of its training epochs."""
    spec = spec_of("vgg16", "interpretable", frozen=False, size=size)
    trainer = trainer_of(spec, size.images, device)
    data = data_of(spec, noise(size.images, size.side))
    inputs = Inputs(trainer.network, data.train, data.mean_SS3, device)
    _epoch(trainer)
    epoch = seconds_of(lambda: _epoch(trainer), device)
    measured = seconds_of(lambda: evaluate(trainer, data, inputs, inputs, inputs, _ignore), device)
    return {"epoch_s": epoch, "metrics_s": measured, "epochs": measured / epoch}


def packs_gain(device: torch.device, size: Size) -> list[Row]:
    """Seconds of one step of several networks of one kind, trained from the top layer on: one by one, and as one."""
    rows = []
    for backbone in get_args(BackboneName):
        model = spec_of(backbone, "interpretable", frozen=True, size=size).model
        times = times_of(model, PACKED, size.batch, size.epochs, device)
        rows.append({"backbone": backbone, "networks": PACKED, **times._asdict(), "ratio": times.packed / times.alone})
        _free(device)
    return rows


def resume(device: torch.device) -> Row:
    """Whether training that was interrupted in an epoch and went on from its saved state ends with the same bits."""
    spec = spec_of("alexnet", "interpretable", frozen=False, size=SMALL)
    spec = spec.model_copy(update={"model": spec.model.model_copy(update={"dropout": 0.5})})
    straight = trainer_of(spec, SMALL.images, device)
    for _ in range(spec.train.epochs):
        _epoch(straight)
    first = trainer_of(spec, SMALL.images, device)
    _epoch(first)
    _interrupt(first)
    saved = io.BytesIO()
    torch.save(first.state_dict(), saved)
    saved.seek(0)
    second = trainer_of(spec, SMALL.images, device)
    second.load_state_dict(torch.load(saved, map_location=device, weights_only=True))
    while second.epoch < spec.train.epochs:
        _epoch(second)
    differ = [
        name
        for name, value in straight.network.state_dict().items()
        if not torch.equal(value, second.network.state_dict()[name])
    ]
    return {"is_bit_identical": not differ, "differ": differ, "interrupted_at": "epoch 2, after its first step"}


def run_tests() -> Row:
    """The outcome of the tests marked `gpu`."""
    if importlib.util.find_spec("pytest") is None:
        return {"outcome": "not run: pytest is not installed"}
    # Without the project's pytest settings, which ask for plug-ins that a bare machine may lack.
    command = [
        sys.executable, "-m", "pytest", "tests/gpu", "-q", "-m", "gpu", "-c", "/dev/null", "--rootdir=.",
        "--import-mode=importlib", "-p", "no:cacheprovider",
    ]  # fmt: skip
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=TEST_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return {"outcome": f"not finished within {TEST_SECONDS:.0f} s"}
    last = ran.stdout.strip().splitlines()[-1:] or [ran.stderr.strip()]
    return {"outcome": re.sub(r"\x1b\[\d+m", "", last[0]), "failures": re.findall(r"^FAILED (\S+)", ran.stdout, re.M)}


def machine(device: torch.device) -> Row:
    """Card, versions and date of the run."""
    facts: Row = {
        "date": datetime.now(UTC).date().isoformat(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "CPU",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        memory = torch.cuda.get_device_properties(device).total_memory
        facts |= {"capability": f"{major}.{minor}", "memory_gib": memory / 2**30, "cuda": torch.version.cuda}
        facts["cudnn"] = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return facts


def run(device: torch.device, size: Size) -> Row:
    """Every part in turn; a part that fails leaves its error in place of its result."""
    started = time.monotonic()

    def is_time_left() -> bool:
        return time.monotonic() - started < BUDGET_SECONDS - TEST_SECONDS

    make_deterministic(1 if device.type == "cpu" else torch.get_num_threads())
    found: Row = {"machine": machine(device), "size": size._asdict()}
    found["resume"] = _attempt(lambda: resume(device))
    found["tests"] = _attempt(run_tests)
    rows = _attempt(lambda: list(throughput(device, size, is_time_left)))
    found["throughput"] = rows
    found["product_tflop_per_s"] = _attempt(lambda: product_rates(device, size))
    found["method_cost"] = _attempt(lambda: method_cost(rows))
    found["packs"] = _attempt(lambda: packs_gain(device, size)) if is_time_left() else "no time left"
    found["metrics"] = _attempt(lambda: metrics_cost(device, size)) if is_time_left() else "no time left"
    if device.type == "cuda":
        found["peak_memory_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
    found["seconds"] = time.monotonic() - started
    return found


def as_markdown(found: Row) -> str:
    """The result as a page with tables."""
    lines = ["# GPU benchmark", "", *(f"* {name}: {value}" for name, value in found["machine"].items())]
    lines += [f"* size: {found['size']}", f"* tests: {found['tests']}", f"* resume: {found['resume']}", ""]
    rows = found["throughput"]
    if isinstance(rows, list):
        best = found["product_tflop_per_s"]
        lines += [
            f"TFLOP/s of one large matrix product: {best}", "",
            "| backbone | trained | variant | precision | images/s | TFLOP/s | of the product's rate |",
            "|---|---|---|---|---:|---:|---:|",
        ]  # fmt: skip
        for row in rows:
            words = f"| {row['backbone']} | {row['trained']} | {row['variant']} | {row['precision']} |"
            if row["images_per_s"] is None:
                lines.append(f"{words} {row['note']} | | |")
                continue
            share = f"{row['tflop_per_s'] / best[row['precision']]:.1%}" if isinstance(best, dict) else ""
            lines.append(f"{words} {row['images_per_s']:.1f} | {row['tflop_per_s']:.3f} | {share} |")
    else:
        lines.append(f"Throughput: {rows}")
    cost = found["method_cost"]
    if isinstance(cost, list):
        lines += ["", "| backbone | trained | precision | interpretable over plain, time |", "|---|---|---|---:|"]
        lines += [f"| {row['backbone']} | {row['trained']} | {row['precision']} | {row['ratio']:.3f} |" for row in cost]
    packs = found["packs"]
    if isinstance(packs, list):
        lines += ["", "| backbone | networks | one by one | as one | ratio |", "|---|---:|---:|---:|---:|"]
        lines += [
            f"| {row['backbone']} | {row['networks']} | {row['alone']:.4f} s | {row['packed']:.4f} s "
            f"| {row['ratio']:.2f} |"
            for row in packs
        ]
    else:
        lines += ["", f"Networks trained as one: {packs}"]
    return "\n".join([*lines, "", f"Metrics of VGG-16: {found['metrics']}", f"Took {found['seconds']:.0f} s.", ""])


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the options, run, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for gpu.json and gpu.md")
    parser.add_argument("--small", action="store_true", help="small networks and images; the default without a GPU")
    parser.add_argument("--batch", type=int, help="images per batch")
    options = parser.parse_args(arguments)
    device = choose_device()
    size = SMALL if options.small or device.type == "cpu" else GPU
    size = size._replace(batch=options.batch or size.batch)
    found = run(device, size)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "gpu.json").write_text(json.dumps(found, indent=2, default=str) + "\n", encoding="utf-8")
    page = as_markdown(found)
    (options.out / "gpu.md").write_text(page, encoding="utf-8")
    print(page)


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


def _epoch(trainer: Trainer) -> None:
    trainer.run_epoch(on_step=lambda: None)


def _epoch_seconds(trainer: Trainer, device: torch.device) -> float:
    return seconds_of(lambda: _epoch(trainer), device)


def _epoch_tflop(trainer: Trainer) -> float:
    """10^12 floating-point operations of an epoch, validation included: torch counts convolutions, matrix products."""
    with FlopCounterMode(display=False) as counter:
        _epoch(trainer)
    return float(counter.get_total_flops()) / 1e12


def _attempt(part: Callable[[], Any]) -> Any:
    """The part's result, or the error that ended it: the other parts still say something."""
    try:
        return part()
    except Exception as error:  # noqa: BLE001 - reported in the output
        traceback.print_exc()
        return f"failed: {type(error).__name__}: {error}"


def _free(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _ignore(_: str) -> None:
    return None


if __name__ == "__main__":
    main()
