"""Everything that a GPU is asked once it is there: tests, throughput, what each setting costs, and exact resumption.

    python -m benchmarks.gpu --out DIR            # on a GPU: within eight minutes
    python -m benchmarks.gpu --out DIR --small    # the same on a CPU in a few minutes, so that it does not rot

Needs Python, torch and the project's light dependencies: no Ray, no MLflow, no data. Writes `gpu.json` and `gpu.md`
into DIR, again after each part. A part that fails is reported with its error, and the others run. Every part has a
share of the eight minutes and inherits what those before it leave; measurements that do not fit are listed as such.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu_parts import (
    GPU,
    SMALL,
    Deadline,
    Row,
    Size,
    method_cost,
    metrics_cost,
    packs_gain,
    precision_gain,
    product_rates,
    resume,
    throughput,
)
from benchmarks.gpu_settings import compile_gain, determinism_price, layout_gain
from workers.training.determinism import choose_device, make_deterministic

TEST_SECONDS = 90.0
SHARES = {
    "throughput": 170.0, "determinism": 40.0, "packs": 35.0, "metrics": 40.0, "layout": 35.0, "compiled": 60.0,
}  # fmt: skip
"""Seconds of the parts that measure row by row; with the tests and ten seconds for the rest they make eight minutes."""
FIRST_SECONDS = {"compiled": 45.0}
"""Expected seconds of a part's first row, where they matter: later ones are expected to take as long as the last."""


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


def run(device: torch.device, size: Size, save: Callable[[Row], None]) -> Row:
    """Every part in turn; a part that fails leaves its error in place of its result.

    Args:
        device: what is measured.
        size: how much.
        save: called with what is known, after each part.
    """
    started = time.monotonic()
    make_deterministic(1 if device.type == "cpu" else torch.get_num_threads())
    found: Row = {"machine": machine(device), "size": size._asdict()}
    found["resume"] = _attempt(resume, device)
    found["product_tflop_per_s"] = _attempt(product_rates, device, size)
    found["tests"] = _attempt(run_tests)
    parts = {
        "throughput": throughput, "determinism": determinism_price, "packs": packs_gain, "metrics": metrics_cost,
        "layout": layout_gain, "compiled": compile_gain,
    }  # fmt: skip
    end = time.monotonic()
    for name, part in parts.items():
        end += SHARES[name]
        found[name] = _rows(part, device, size, Deadline(end, FIRST_SECONDS.get(name, 0.0)))
        if name == "throughput":
            found["method_cost"] = _attempt(method_cost, found["throughput"])
            found["precision"] = _attempt(precision_gain, found["throughput"])
        if device.type == "cuda":
            found["peak_memory_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
        found["seconds"] = time.monotonic() - started
        save(found)
    return found


TABLES: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "throughput": (
        "Training",
        {"backbone": "", "trained": "", "variant": "", "precision": "", "images_per_s": ".1f", "tflop_per_s": ".3f",
         "of_product": ".1%"},
    ),
    "method_cost": (
        "Time of interpretable over plain",
        {"backbone": "", "trained": "", "precision": "", "ratio": ".3f"},
    ),
    "precision": ("Time of bfloat16 over float32", {"backbone": "", "trained": "", "variant": "", "ratio": ".3f"}),
    "determinism": (
        "An epoch with deterministic kernels over one with the fastest",
        {"backbone": "", "deterministic_s": ".4f", "free_s": ".4f", "ratio": ".3f"},
    ),
    "packs": (
        "A step of networks trained as one over single steps",
        {"backbone": "", "networks": "", "alone": ".4f", "packed": ".4f", "ratio": ".2f", "difference": ".1e"},
    ),
    "metrics": (
        "All measures",
        {"backbone": "", "epoch_s": ".3f", "passes_s": ".3f", "metrics_s": ".3f", "epochs": ".2f", "passes": ".2f"},
    ),
    "layout": (
        "An epoch with channels last over one with channels first",
        {"backbone": "", "precision": "", "first_s": ".4f", "last_s": ".4f", "ratio": ".3f"},
    ),
    "compiled": (
        "A compiled epoch over a plain one",
        {"backbone": "", "mode": "", "plain_s": ".4f", "compiled_s": ".4f", "first_s": ".1f", "ratio": ".3f",
         "difference": ".1e"},
    ),
}  # fmt: skip
"""Title, columns and formats of each table of the page."""


def as_markdown(found: Row) -> str:
    """The result as a page with tables."""
    lines = ["# GPU benchmark", "", *(f"* {name}: {value}" for name, value in found["machine"].items())]
    lines += [f"* {name}: {found[name]}" for name in ("size", "tests", "resume", "product_tflop_per_s")]
    for name, (title, columns) in TABLES.items():
        lines += ["", f"## {title}", ""]
        if isinstance(found.get(name), list):
            lines += _table(found[name], columns)
        else:
            lines.append(str(found.get(name, "not measured yet")))
    return "\n".join([*lines, "", f"Took {found['seconds']:.0f} s.", ""])


def _table(rows: Sequence[Row], columns: Mapping[str, str]) -> list[str]:
    """The lines of a table, with a note at the end of rows without values."""
    head = [f"| {' | '.join(columns)} | |", f"|{'---|' * (len(columns) + 1)}"]
    return head + [
        f"| {' | '.join(_cell(row.get(name), form) for name, form in columns.items())} | {row.get('note', '')} |"
        for row in rows
    ]


def _cell(value: Any, form: str) -> str:
    return "" if value is None else format(value, form)


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
    options.out.mkdir(parents=True, exist_ok=True)

    def save(found: Row) -> None:
        (options.out / "gpu.json").write_text(json.dumps(found, indent=2, default=str) + "\n", encoding="utf-8")
        (options.out / "gpu.md").write_text(as_markdown(found), encoding="utf-8")

    print(as_markdown(run(device, size, save)))


def _rows(part: Callable[..., Iterable[Row]], *given: Any) -> list[Row]:
    """The rows of a part, up to an error that ends it."""
    found: list[Row] = []
    try:
        found.extend(part(*given))
    except Exception as error:  # noqa: BLE001 - reported in the output
        found.append({"note": _failure(error)})
    return found


def _attempt(part: Callable[..., Any], *given: Any) -> Any:
    """The part's result, or the error that ended it: the other parts still say something."""
    try:
        return part(*given)
    except Exception as error:  # noqa: BLE001 - reported in the output
        return _failure(error)


def _failure(error: Exception) -> str:
    traceback.print_exc()
    return f"failed: {type(error).__name__}: {error}"


if __name__ == "__main__":
    main()
