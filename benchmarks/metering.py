"""Measures what a driver and its workers take for each of many jobs, in time and in CPU time."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks.no_op import notes


class Cost(NamedTuple):
    """Milliseconds per job."""

    wall: float
    driver: float
    """CPU time of the process that hands out the jobs."""
    workers: float
    """CPU time of the processes that run them."""

    @property
    def cpu(self) -> float:
        """CPU time of both."""
        return self.driver + self.workers


@dataclass
class Meter:
    """Measures from the first noted begin to the last one, of `jobs` after `warming` others."""

    folder: Path
    jobs: int
    warming: int = 0
    """Jobs before those measured, in which workers import libraries and open the store."""
    _used: list[dict[int, float]] = field(default_factory=list)
    """CPU seconds by process, first at the first begin and then at the last."""

    def __enter__(self) -> Meter:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        for wanted in (self.warming + 1, self.warming + self.jobs):
            while len(self._begins()) < wanted and not self._over.wait(0.02):
                pass
            self._used.append(used_cpu())

    def _begins(self) -> list[float]:
        return sorted(line["at"] for line in notes(self.folder) if line["what"] == "begins")

    def cost(self) -> Cost:
        """Return what one job took, after the context has ended."""
        begins = self._begins()[self.warming :]
        return cost_of(begins[-1] - begins[0], *self._used, self.jobs - 1)


def used_cpu() -> dict[int, float]:
    """Return the CPU seconds so far of this process and of Ray's workers below it."""
    found = {}
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with suppress(psutil.Error):
            if process.pid == os.getpid() or process.cmdline()[0].startswith("ray::"):
                times = process.cpu_times()
                found[process.pid] = times.user + times.system
    return found


def cost_of(wall: float, before: Mapping[int, float], after: Mapping[int, float], jobs: int) -> Cost:
    """Return the cost of one of `jobs` jobs, from what all of them took, in seconds."""
    used = {pid: seconds - before.get(pid, 0.0) for pid, seconds in after.items()}
    driver = used.pop(os.getpid())
    return Cost(*(1000 * seconds / jobs for seconds in (wall, driver, sum(used.values()))))
