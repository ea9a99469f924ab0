"""Logs how busy a job's machine is to the job's run, under the names of MLflow's own system metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Protocol, cast

from schemas.errors import Superseded
from schemas.order import WorkOrder
from workers.tracking.background import repeating
from workers.tracking.run_log import RunLog

PREFIX = "system/"
"""MLflow shows metrics with this prefix in the tab `System metrics`."""


class Monitor(Protocol):
    """What MLflow's monitors do."""

    def collect_metrics(self) -> None:
        """Take one sample."""
        ...

    def aggregate_metrics(self) -> dict[str, float]:
        """Return the means of the samples, by name."""
        ...

    def clear_metrics(self) -> None:
        """Forget the samples."""
        ...


@dataclass
class SystemMetrics:
    """Measures the machine, and logs what it finds."""

    open_run: Callable[[], RunLog]
    _run: RunLog | None = field(default=None, init=False)
    _monitors: list[Monitor] = field(default_factory=list, init=False)

    def log(self) -> None:
        """Log the use of the CPU since the last call, and of memory and GPUs now; the first call only begins.

        What a store that does not answer misses is not logged later.

        Raises:
            Superseded: another attempt has the job.
        """
        try:
            is_first = not self._monitors
            self._monitors = self._monitors or _monitors()
            values = self._measure()
            if is_first:
                return
            self._run = self._run or self.open_run()
            self._run.log_system(values)
        except Superseded:
            raise
        except Exception:  # noqa: BLE001 - a measurement is lost, and nothing here may disturb the job
            self._run = None

    def _measure(self) -> dict[str, float]:
        values: dict[str, float] = {}
        for monitor in self._monitors:
            monitor.collect_metrics()
            values |= {f"{PREFIX}{name}": float(value) for name, value in monitor.aggregate_metrics().items()}
            monitor.clear_metrics()
        return values


def _monitors() -> list[Monitor]:
    """Return MLflow's monitors of CPU and memory and, with NVIDIA's library `nvidia-ml-py`, of GPUs."""
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor

    monitors = [_made(CPUMonitor)]
    with suppress(ImportError, RuntimeError):  # without the library, and without a GPU
        monitors.append(_made(GPUMonitor))
    return monitors


def _made(kind: type) -> Monitor:
    return cast("Monitor", kind())


@contextmanager
def system_metrics(order: WorkOrder) -> Iterator[None]:
    """Log the use of the machine in the background within the context, as often as the order says."""
    if not order.system_metrics_seconds:
        yield
        return
    metrics = SystemMetrics(lambda: RunLog(order.tracking_uri, order.run_id, order.attempt))
    with repeating(metrics.log, first=0.0, pause=order.system_metrics_seconds):
        yield
