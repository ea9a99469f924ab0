"""The contract of a pool of workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Protocol

from orchestrator.execution.placement import Idle, Wish
from schemas.errors import ResourceError
from schemas.order import Progress, WorkOrder
from schemas.results import JobResult


class RayAway(ResourceError):
    """The cluster does not answer at the moment. Exit code 5."""


class Ended(NamedTuple):
    """An attempt that ended, and the worker that ran it."""

    worker: int
    result: JobResult
    node: str = ""
    """Id of the worker's node; empty if it is unknown."""
    is_told: bool = False
    """Whether the worker itself has told the result; otherwise its end may be found where it left it."""


class WorkerPool(Protocol):
    """Workers that come and go with the machines; each runs one job at a time. Not thread-safe.

    A worker is requested, answers, is idle or busy, and is released or lost. Its number is never used again. Each place
    of a process that runs a pack is a worker, though the process is lost as a whole.
    """

    @property
    def size(self) -> int:
        """Number of workers that have answered; 0 while the machines do not answer."""

    @property
    def cores(self) -> int:
        """Cores of the machine, where jobs may use all of them; 0 on a cluster, where others use them too."""

    @property
    def is_private(self) -> bool:
        """Whether the workers are on this machine alone, so that no other machine can ever join."""

    @property
    def places(self) -> int:
        """Number of jobs of equal shape that a process is known to run at the same time."""

    @property
    def packs(self) -> bool:
        """Whether a worker may run several jobs of equal shape at the same time."""

    def ask(self, wishes: Sequence[Wish], barred: Mapping[int, frozenset[str]] = MappingProxyType({})) -> None:
        """Say which jobs could run now and have no worker, in order.

        The pool requests workers for them, and releases workers that none of them needs. A worker that does not answer
        loses its job if another machine could take it.

        Args:
            wishes: One for each job.
            barred: Ids of the nodes on which the job of each busy worker cannot run; none by default.
        """

    def idle(self) -> list[Idle]:
        """Return the workers that have answered and have no job."""

    def nodes(self) -> dict[str, str]:
        """Return the live nodes on which workers can run: the name of the machine by the node's id."""

    def waiting(self) -> str:
        """Return why jobs of the last `ask` have no worker, in a sentence; empty if none waits for a machine."""

    def start(self, worker: int, order: WorkOrder) -> None:
        """Start an attempt on an idle worker."""

    def wait(self, seconds: float) -> list[Ended]:
        """Wait for attempts that end and workers that answer, for up to `seconds`.

        Returns:
            The attempts that ended since the last call, those of dead workers included.
        """

    def warnings(self) -> frozenset[str]:
        """Return what people should know about the workers that have answered so far."""

    def progress(self) -> dict[int, Progress]:
        """Return the last known progress of each busy worker."""

    def stop(self) -> None:
        """Ask every running job to save a checkpoint and to end as interrupted. A worker that hangs is killed."""

    def interrupt(self, worker: int) -> None:
        """Ask the job of one worker to save a checkpoint and to end as interrupted. The worker stays usable."""

    def close(self) -> None:
        """End all workers, and the jobs they run."""
