"""The contract of a pool of workers, and how many workers a pool has."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from schemas.errors import ResourceError
from schemas.order import Progress, WorkOrder
from schemas.results import JobResult


class RayAway(ResourceError):
    """The cluster does not answer at the moment. Exit code 5."""


class Ended(NamedTuple):
    """An attempt that ended, and the slot that it ran on."""

    slot: int
    result: JobResult


class WorkerPool(Protocol):
    """A fixed number of slots; each runs one job at a time. A worker that dies is replaced. Not thread-safe."""

    @property
    def slots(self) -> int:
        """Number of slots; 0 while the machines of the workers do not answer."""

    @property
    def cores(self) -> int:
        """Cores of the machine of a slot; of the smallest one, if they differ."""

    def start(self, slot: int, order: WorkOrder) -> None:
        """Start an attempt on a free slot."""

    def wait(self, seconds: float) -> list[Ended]:
        """Wait for attempts that end, for up to `seconds`.

        Returns:
            The attempts that ended since the last call, those of dead workers included.
        """

    def progress(self) -> dict[int, Progress]:
        """Return the last known progress of each busy slot."""

    def stop(self) -> None:
        """Ask every running job to save a checkpoint and to end as interrupted."""

    def interrupt(self, slot: int) -> None:
        """Ask the job of one slot to save a checkpoint and to end as interrupted. The slot stays usable."""

    def close(self) -> None:
        """End all workers, and the jobs they run."""


class WorkerLayout(NamedTuple):
    """The number of slots, and the cores and GPUs of each."""

    slots: int
    cpus: int
    gpus: float
