"""Builders for the orchestrator's tests: small sweeps, records, and a pool whose jobs end as scripted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from orchestrator.execution.placement import Idle, Wish
from orchestrator.execution.pool import Ended
from orchestrator.execution.progress import Now
from orchestrator.ledger.base import LedgerWriter
from orchestrator.ledger.job_moves import first_record
from orchestrator.ledger.records import JobRecord, StoredPlan
from orchestrator.planning.planner import PlannedSweep, plan
from orchestrator.planning.request import SweepRequest, define
from schemas.job import DataSpec, JobSpec
from schemas.lifecycle import JobState, StopReason
from schemas.order import Progress, WorkOrder
from schemas.results import CheckpointPointer, Failure, JobMetrics, JobResult
from schemas.sweep import Resources, SweepSpec


class FixedResolver:
    """A resolver with fixed digests and labels, which reads no files."""

    def __init__(self, digest: str = "d0") -> None:
        self.digest = digest

    def data_digest(self, data: DataSpec) -> str:
        return f"{self.digest}-{data.images}"

    def label_names(self, data: DataSpec) -> tuple[str, ...]:
        return ("voc-cat", "001.First", "002.Second") if data.labels == "species" else ()

    def everything(self, data: DataSpec) -> DataSpec:
        return data

    def weights_digest(self, path: str) -> str:
        return f"sha-of-{path}"

    def weights_label(self, path: str) -> str:
        return f"label of {path}"


Plan = Callable[..., PlannedSweep]


def plan_of(sweep: str | Mapping[str, Any], *, digest: str = "d0", **options: Any) -> PlannedSweep:
    """Plan a grid, or a sweep given by its fields, without reading files."""
    fields = {"grid": sweep} if isinstance(sweep, str) else dict(sweep)
    return plan(define(SweepRequest(sweep=SweepSpec.model_validate(fields), **options)), FixedResolver(digest))


def run_elsewhere(ledger: LedgerWriter, job: JobSpec) -> None:
    """Record that the sweep `other` runs a job."""
    ledger.begin_sweep(StoredPlan(name="other", profile="laptop", jobs=()), 0.0)
    ledger.add(job, "other", 0.0)
    ledger.move(job.key, JobState.RUNNING, 0.0)


def metrics(accuracy: float = 0.9, instability: float | None = 0.1, **more: Any) -> JobMetrics:
    """Return the metrics of a finished job."""
    return JobMetrics(test_accuracy=accuracy, train_accuracy=1.0, location_instability=instability, **more)


def result_of(order: WorkOrder, reason: StopReason = StopReason.FINISHED, seconds: float = 1.0) -> JobResult:
    """Return the result of an attempt that stopped for `reason`."""
    finished = reason is StopReason.FINISHED
    return JobResult(
        job_key=order.spec.key,
        attempt=order.attempt,
        stop_reason=reason,
        seconds=seconds,
        metrics=metrics(chance_accuracy=0.5) if finished else None,
        checkpoint=CheckpointPointer(path=f"{order.spec.key}.pt", epoch=1, sha256="0") if finished else None,
        failure=None if finished else Failure(kind="Scripted", message=f"ended by script: {reason}"),
        micro_batches=order.micro_batches,
    )


class ScriptedPool:
    """A pool without processes. Each `wait` ends the oldest job, for the next reason in the script of its title."""

    def __init__(self, slots: int = 1, script: Mapping[str, list[StopReason]] | None = None) -> None:
        self._slots = slots
        self._script = {title: list(reasons) for title, reasons in (script or {}).items()}
        self.orders: list[WorkOrder] = []
        self.busy: dict[int, WorkOrder] = {}
        self.most_busy = 0
        self.stopped = False
        self.interrupted: set[str] = set()
        self.closed = False
        self.on_start: Callable[[WorkOrder], None] = lambda order: None
        self.on_wait: Callable[[], None] = lambda: None
        self.needs = Resources().needs("alexnet")
        """What each of its workers has."""
        self.wishes: list[Wish] = []
        self.held: str | None = None
        """Title of a job that runs until it is asked to stop."""

    @property
    def size(self) -> int:
        return self._slots

    @property
    def cores(self) -> int:
        return 4

    packs = False
    places = 1

    @property
    def is_private(self) -> bool:
        return True

    def ask(self, wishes: Sequence[Wish], barred: Mapping[int, frozenset[str]] = MappingProxyType({})) -> None:
        self.wishes = list(wishes)

    def idle(self) -> list[Idle]:
        return [Idle(number, self.needs, "node") for number in range(self._slots) if number not in self.busy]

    def nodes(self) -> dict[str, str]:
        return {"node": "host"}

    def waiting(self) -> str:
        return ""

    @property
    def started(self) -> list[str]:
        return [order.spec.title for order in self.orders]

    def start(self, worker: int, order: WorkOrder) -> None:
        assert worker not in self.busy, "a worker takes one job at a time"
        self.busy[worker] = order
        self.orders.append(order)
        self.most_busy = max(self.most_busy, len(self.busy))
        self.on_start(order)

    def wait(self, seconds: float) -> list[Ended]:
        self.on_wait()
        ended = [
            slot for slot, order in self.busy.items() if self._asked_to_end(order) or order.spec.title != self.held
        ]
        if not ended:
            return []
        order = self.busy.pop(ended[0])
        reasons = self._script.get(order.spec.title, [])
        reason = reasons.pop(0) if reasons else StopReason.FINISHED
        return [Ended(ended[0], result_of(order, StopReason.INTERRUPTED if self._asked_to_end(order) else reason))]

    def _asked_to_end(self, order: WorkOrder) -> bool:
        return self.stopped or order.spec.title in self.interrupted

    def warnings(self) -> frozenset[str]:
        return frozenset()

    def progress(self) -> dict[int, Progress]:
        return {slot: Progress(job_key=order.spec.key, phase="training") for slot, order in self.busy.items()}

    def stop(self) -> None:
        self.stopped = True

    def interrupt(self, worker: int) -> None:
        self.interrupted.add(self.busy[worker].spec.title)

    def close(self) -> None:
        self.closed = True


class Listener:
    """A display that records what it is given."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.shown: list[Now] = []

    def show(self, now: Now) -> None:
        self.shown.append(now)

    def say(self, line: str) -> None:
        self.lines.append(line)

    def close(self) -> None: ...


def record_of(spec: JobSpec, state: JobState, reason: StopReason | None = None, **more: Any) -> JobRecord:
    """Return the record of a job after one attempt. A failed one has a failure that depends on its reason."""
    failed = state is JobState.FAILED
    failure = Failure(kind="Boom", message=f"because {reason}", traceback=f'File "a.py", line 1, in {reason}')
    result = JobResult(
        job_key=spec.key, attempt=1, stop_reason=reason or StopReason.FINISHED, failure=failure if failed else None
    )
    first = first_record(spec, "s", 0.0, run_id=f"run-{spec.key}")
    return replace(first, **({"state": state, "attempt": 1, "stop_reason": reason, "result": result} | more))
