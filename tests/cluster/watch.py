"""Looks at a cluster once a second: which nodes are busy, and whether one is idle beside a job that could run."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from contextlib import suppress

import psutil

from orchestrator.execution.ray_pool import SILENT_SECONDS
from tests.cluster.stage import WORKER, Cluster

BUSY_SECONDS = 6.0
BUSY_SHARE = 0.04
"""A worker is busy if it used this share of a CPU within the last BUSY_SECONDS; an idle one uses less than 1 %."""


class Watch:
    """Samples a cluster in a thread until it is stopped."""

    def __init__(self, cluster: Cluster, jobs: int) -> None:
        """
        Args:
            cluster: to look at.
            jobs: number of jobs that are to be done, with pre-training.
        """
        self.cluster, self.jobs = cluster, jobs
        self.longest_idle = 0.0
        """Longest time in which a node was idle beside a job that could run, seconds."""
        self.longest_untrue = 0.0
        """Longest time in which the store called more jobs running than there were workers, seconds."""
        self.when_idle = ""
        self._expected = self._started = False
        self.attempts: dict[str, int] = {}
        self._used: dict[int, deque[tuple[float, float]]] = {}
        self._end = threading.Event()
        self._idle_since: float | None = None
        self._untrue_since: float | None = None
        self._joined: set[str] = set()
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._look_on, name="watch", daemon=True)
        self._thread.start()

    def expect(self, expected: bool) -> None:
        """Say whether jobs are to be running from now on; until the first worker is there, nothing is held idle."""
        self._expected, self._started = expected, False

    def stop(self) -> None:
        """Stop looking."""
        self._end.set()
        self._thread.join(30)

    def busy_nodes(self) -> set[str]:
        """Return the names of the nodes whose workers have used a CPU lately."""
        return set(self._busy)

    _busy: frozenset[str] = frozenset()

    def _look_on(self) -> None:
        count = 0
        while not self._end.wait(1.0):
            if count % 3 == 0:
                self._joined = self.cluster.live_nodes()
            count += 1
            self._look(time.monotonic())

    def _look(self, now: float) -> None:
        workers = self._workers()
        self._busy = frozenset(host for pid, host in workers.items() if self._is_busy(pid, now))
        self._started = self._started or bool(workers)
        cluster = self.cluster
        serves = (
            self._expected
            and self._started
            and all(service.serves for service in (cluster.postgres, cluster.objects, cluster.mlflow))
        )
        nodes = {name for name in cluster.usable_nodes() if name in self._joined}
        could_run, running = self._jobs()
        held = sum(self._may_answer(host, now) for host in workers.values())
        idle = serves and len(self._busy & nodes) < min(could_run - held, len(nodes))
        self._idle_since = (self._idle_since or now) if idle else None
        if self._idle_since is not None and now - self._idle_since > self.longest_idle:
            self.longest_idle = now - self._idle_since
            self.when_idle = (
                f"until second {now - self._began:.0f}: {sorted(nodes)} usable, {sorted(self._busy)} busy, "
                f"{could_run} jobs could run, {running} called running"
            )
        untrue = serves and bool(nodes) and running > len(workers)
        self._untrue_since = (self._untrue_since or now) if untrue else None
        if self._untrue_since is not None:
            self.longest_untrue = max(self.longest_untrue, now - self._untrue_since)

    def _may_answer(self, host: str, now: float) -> bool:
        """Whether a host is out for so short a time that its job is left to it."""
        since = self.cluster.network.hosts[host].out_since
        return since is not None and now - since < SILENT_SECONDS

    def _workers(self) -> dict[int, str]:
        """Return the host of every process that runs jobs, by its number."""
        hosts = {host.process_space: name for name, host in self.cluster.network.hosts.items() if host.alive}
        found = {}
        for process in psutil.process_iter(["name"]):
            with suppress(psutil.Error, OSError):
                if process.info["name"].startswith(WORKER):
                    space = os.readlink(f"/proc/{process.pid}/ns/pid")
                    if space in hosts:
                        found[process.pid] = hosts[space]
        return found

    def _is_busy(self, pid: int, now: float) -> bool:
        with suppress(psutil.Error):
            times = psutil.Process(pid).cpu_times()
            seen = self._used.setdefault(pid, deque())
            seen.append((now, times.user + times.system))
            while now - seen[0][0] > BUSY_SECONDS:
                seen.popleft()
            (first, before), (last, used) = seen[0], seen[-1]
            return last == first or used - before > BUSY_SHARE * (last - first)
        return False

    def _jobs(self) -> tuple[int, int]:
        """Return how many jobs could run, and how many the store calls running."""
        runs = self.cluster.store.runs()
        for run in runs:
            self.attempts[run.key] = max(run.attempt, self.attempts.get(run.key, 0))
        done = [run for run in runs if run.state in ("succeeded", "failed", "cancelled")]
        running = sum(run.state == "running" for run in runs)
        lends = any(run.title.startswith("pre-training") for run in done)
        return (self.jobs - len(done) if lends else 1), running
