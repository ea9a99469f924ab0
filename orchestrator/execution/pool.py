"""The slots on which jobs run: long-lived Ray actors, replaced when they die, and all stopped in the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from schemas.order import Progress, WorkOrder
from schemas.results import JobResult

if TYPE_CHECKING:
    pass


class Ended(NamedTuple):
    slot: int
    result: JobResult


class WorkerPool(Protocol):
    @property
    def slots(self) -> int: ...

    @property
    def cores(self) -> int:
        """Of the machine that a slot is on; of the smallest, where they differ."""

    def start(self, slot: int, order: WorkOrder) -> None: ...

    def wait(self, seconds: float) -> list[Ended]:
        """Jobs that ended, at the latest after `seconds`."""

    def progress(self) -> dict[int, Progress]:
        """The newest word from each busy slot."""

    def stop(self) -> None:
        """Ask every running job to save what it has and to end as interrupted."""

    def interrupt(self, slot: int) -> None:
        """Ask the job of one slot to do so; the slot takes other jobs afterwards."""

    def close(self) -> None:
        """End everything that was started, running jobs included."""


class WorkerLayout(NamedTuple):
    """How many slots, and what each takes."""

    slots: int
    cpus: int
    gpus: float
