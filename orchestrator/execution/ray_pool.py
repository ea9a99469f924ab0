"""Workers as Ray actors: requested while jobs could use them, released or replaced as the machines change."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from orchestrator.execution.attempt_ends import AttemptEnds
from orchestrator.execution.fitting import Fitting
from orchestrator.execution.in_time import Hung
from orchestrator.execution.joining import Joining
from orchestrator.execution.listening import Listening
from orchestrator.execution.losses import LOSSES, last_line, lost, reason_of_loss
from orchestrator.execution.machines import Machines, Watch
from orchestrator.execution.placement import Asked, Idle, Node, Wish, decide, for_workers, has_place, why_waiting
from orchestrator.execution.pool import Ended
from orchestrator.execution.ray_worker import CALL_SECONDS, RayWorker, RayWorkers, answer_to, promptly
from orchestrator.execution.usable_nodes import UsableNodes
from orchestrator.execution.worker_stops import WorkerStops
from orchestrator.wording import in_words
from schemas.errors import ResourceError
from schemas.lifecycle import StopReason
from schemas.order import Progress, WorkerFacts, WorkOrder
from schemas.results import JobResult
from schemas.sweep import Needs

if TYPE_CHECKING:
    from ray.exceptions import RayError

GRACE_SECONDS = 10.0
"""How long a worker on a cluster stays without a job that it could run."""
SILENT_SECONDS = 15.0
"""After so long without an answer a worker on a cluster loses its job to a machine that could take it."""


@dataclass
class RayPool:
    """The contract of `WorkerPool` on Ray. Ray's own retries are off, because the driver decides on every retry."""

    worker_class: Callable[[], Any]
    """Returns a Ray actor class with the methods of `workers.actor.JobWorker`."""
    machines: Machines
    limit: int
    """Largest number of actors."""
    needs: tuple[Needs, ...]
    """What the workers of the sweep's jobs need."""
    cores: int = 0
    """See `WorkerPool.cores`."""
    at_once: int = 0
    """Number of workers to request before any job is known."""
    arguments: tuple[str, ...] = ()
    """Arguments of the worker class."""
    start_seconds: float = 120.0
    """Longest time that a worker may take to start, once it has a place."""
    patience: float = 600.0
    """Seconds for which a cluster that does not answer is waited for."""
    default_gpus: float | None = None
    """GPUs of a worker whose needs leave them open; None until a node for workers was seen."""
    is_joined: bool = True
    """Whether Ray has been joined already; otherwise `wait` does it."""
    places: int = 1
    """Number of jobs of equal shape that an actor is known to run at the same time."""
    most_places: int = 1
    """Largest number of jobs that an actor may run at the same time; its first answer says how many."""
    _class: Any = None
    _workers: RayWorkers = field(default_factory=RayWorkers)
    _last_id: int = -1
    _ends: AttemptEnds = field(default_factory=AttemptEnds)
    """What `wait` has not returned yet."""
    _watch: Watch | None = None
    _waiting: str = ""
    _warnings: frozenset[str] = frozenset()
    _listening: Listening = field(default_factory=Listening)

    def __post_init__(self) -> None:
        self._joining = Joining(self.machines, self.patience)
        self._fitting = Fitting(self.needs, self.is_private, self.default_gpus)
        self._usable = UsableNodes(self.is_private)
        self._stops = WorkerStops(self._workers, self._ends)
        if self.is_joined:
            self._begin()
        else:
            self._joining.begin()

    def _begin(self) -> None:
        """Begin with a Ray that was just joined."""
        self._joining.note_joined()
        self._class = self.worker_class()
        self._watch = Watch(self.machines.look)
        for _ in range(self.at_once):
            self._request(Wish(self._fitting.resolved(self.needs[0])), self.needs[0])

    @property
    def is_private(self) -> bool:
        """See `WorkerPool.is_private`."""
        return self.machines.is_private

    @property
    def size(self) -> int:
        """See `WorkerPool.size`."""
        return sum(worker.facts is not None for worker in self._workers.values())

    def nodes(self) -> dict[str, str]:
        """See `WorkerPool.nodes`."""
        return self._usable.among(self._nodes())

    @property
    def packs(self) -> bool:
        """See `WorkerPool.packs`."""
        may_have_gpus = not self._fitting.is_checked or any(self._fitting.resolved(needs).gpus for needs in self.needs)
        is_known = any(worker.facts is not None for worker in self._workers.values())
        return self.places > 1 or (self.most_places > 1 and may_have_gpus and not is_known)

    def waiting(self) -> str:
        """See `WorkerPool.waiting`."""
        return self._joining.away or self._waiting

    def idle(self) -> list[Idle]:
        """See `WorkerPool.idle`."""
        # A job goes beside others only once no worker of its own is about to answer.
        is_coming = any(one.facts is None and (one.has_place or self.is_private) for one in self._workers.values())
        return self._workers.with_room(beside_others=not is_coming)

    def ask(self, wishes: Sequence[Wish], barred: Mapping[int, frozenset[str]] = MappingProxyType({})) -> None:
        """See `WorkerPool.ask`."""
        self._waiting = ""
        if self._watch is None or (not self.is_private and self._watch.newest is None):
            return
        if not self._fitting.is_checked and not self.is_private and for_workers(self._nodes()):
            return  # what fits no machine is refused before anything is requested
        now = time.monotonic()
        avoided = self._usable.avoided(now)
        different = {id(wish): wish for wish in wishes}  # thousands of jobs may have one wish
        stated = {self._fitting.resolved(wish.needs): wish.needs for wish in different.values()}
        made = {
            name: Wish(self._fitting.resolved(wish.needs), wish.avoid | avoided) for name, wish in different.items()
        }
        wanted = [made[id(wish)] for wish in wishes]
        idle = [Idle(one.id, one.wish.needs, one.node) for one in self._workers.free()]
        asked = [
            Asked(one.id, one.wish, one.has_place or self.is_private)
            for one in self._workers.values()
            if one.facts is None
        ]
        processes = self._workers.processes()
        left = self.limit - len(processes)
        ahead = 0 if self.is_private else max(1, sum(places[0].facts is not None for places in processes))
        found = decide(wanted, idle, asked, self._with_room(), left, ahead)
        for wish in found.request:
            self._request(wish, stated[wish.needs])
        for worker in self._workers.values():
            wish = Wish(worker.wish.needs, barred.get(worker.id, frozenset()) | avoided | {worker.node})
            is_silent = worker.order is not None and worker.silent >= SILENT_SECONDS and not self.is_private
            if is_silent and has_place(wish, wanted, idle, asked, self._with_room(), left):
                self._usable.note_silence(worker.node, now)
                why = f"Its worker has not answered for {SILENT_SECONDS:g} s, and another machine can take the job"
                self._stops.lose(worker, StopReason.NODE_LOST, ResourceError(why))
                break  # the place is taken now
        self._release(found.spare, 0.0 if found.is_short else GRACE_SECONDS)
        served = {one.wish.needs for one in self._workers.values() if one.facts or one.has_place}
        unmet = [wish for wish in found.unmet if wish.needs not in served]
        if unmet and not self.is_private:
            refused = self._watch.newest.refused if self._watch.newest else None
            self._waiting = why_waiting(unmet, self._nodes(), refused or ())

    def _nodes(self) -> tuple[Node, ...]:
        newest = self._watch.newest if self._watch else None
        return newest.nodes if newest else ()

    def _with_room(self) -> list[Node]:
        """Return the nodes with what is free there; on a private Ray, what its own workers leave."""
        nodes = list(self._nodes())
        if self.is_private and nodes:
            free = nodes[0].total
            for places in self._workers.processes():
                free = free.without(places[0].wish.needs)
            nodes[0] = nodes[0]._replace(free=free)
        return nodes

    def _release(self, spare: frozenset[int], grace: float) -> None:
        """Release the workers that no job could use for `grace` seconds, so that others get their resources."""
        now = time.monotonic()
        keeps = self.is_private and len(set(self.needs)) == 1
        for worker in list(self._workers.values()):
            if worker.id not in spare:
                worker.spare_since = None
            elif worker.spare_since is None:
                worker.spare_since = now
            if worker.spare_since is not None and not keeps and now - worker.spare_since >= grace:
                self._stops.kill(worker)

    def _request(self, wish: Wish, needs: Needs) -> None:
        options: dict[str, Any] = {"num_cpus": wish.needs.cpus, "num_gpus": wish.needs.gpus or 0}
        if self.most_places > 1:
            options["max_concurrency"] = self.most_places + 2  # two more answer `progress` and `stop`
        if not self.is_private:
            options["memory"] = int(wish.needs.memory_gb * 2**30)
            if wish.avoid:
                options["label_selector"] = {"ray.io/node-id": f"!in({','.join(sorted(wish.avoid))})"}
        with suppress(Hung):  # the watch notes that Ray does not answer
            actor = promptly(self._class.options(**options).remote, *self.arguments)
            answer = promptly(actor.hello.remote)
            self._last_id += 1
            own = self._last_id
            self._workers[own] = RayWorker(own, own, wish, needs, actor, answer, time.monotonic())

    def start(self, worker: int, order: WorkOrder) -> None:
        """See `WorkerPool.start`."""
        own = self._workers.get(worker)
        if own is None:  # lost since `idle` was asked
            self._ends.add(Ended(worker, lost(order, StopReason.WORKER_LOST, ResourceError("The worker is gone"))))
            return
        own.begin_job(order)
        try:
            own.call = promptly(own.actor.run.remote, order.model_dump_json())
        except Hung as hung:  # the order may still reach it
            self._stops.lose(own, StopReason.WORKER_LOST, ResourceError(str(hung)))

    def wait(self, seconds: float) -> list[Ended]:
        """See `WorkerPool.wait`.

        Raises:
            ResourceError: Ray has gone and does not come back, a worker fits no machine, or no worker starts.
        """
        if self._watch is None:
            if self._joining.wait(seconds):
                self._begin()
            return self._ends.take()
        if self._watch.problem:
            self._lose_ray(self._watch.problem)
            return self._ends.take()
        self._look()
        self._stops.kill_deaf()
        done = self._wait_for_calls(0.0 if self._ends else seconds)
        with suppress(Hung):  # asked again by the next `wait`
            for worker in list(self._workers.values()):
                if worker.id not in self._workers:
                    continue  # lost with another job of its process
                if worker.facts is None and worker.answer in done:
                    self._note_answer(worker)
                elif worker.call is not None and worker.call in done:
                    self._collect(worker)
        self._ends.release(self._watch.seen_at)
        self._usable.check(self._nodes(), self.size)
        return self._ends.take()

    def _wait_for_calls(self, seconds: float) -> set[Any]:
        import ray

        calls = [
            one.call if one.facts else one.answer
            for one in self._workers.values()
            if not one.is_idle and one.failed is None
        ]
        if not calls:
            time.sleep(min(seconds, 0.2))
            return set()
        try:
            done, _ = promptly(ray.wait, calls, num_returns=1, timeout=seconds, more_seconds=seconds)
            if done and len(calls) > 1:
                done, _ = promptly(ray.wait, calls, num_returns=len(calls), timeout=0)
        except Hung:
            return set()
        return set(done)

    def _look(self) -> None:
        """Note what the watch has seen: places of requested workers, and nodes that drain."""
        watch = self._watch
        if watch is None or watch.newest is None:
            return
        self._fitting.note(watch.newest, is_working=any(one.order is not None for one in self._workers.values()))
        for worker in [one for one in self._workers.values() if self._fitting.resolved(one.needs) != one.wish.needs]:
            self._stops.kill(worker)  # it was requested before it was known whether workers take GPUs
        now = time.monotonic()
        draining = {node.id for node in watch.newest.nodes if node.drains}
        for worker in list(self._workers.values()):
            if worker.id not in self._workers:
                continue  # it went with its process
            place = watch.newest.places.get(worker.ray_id)
            if worker.facts is None and not worker.has_place and place is not None:
                worker.has_place, worker.since = True, now
            if worker.failed is not None:
                if place is not None or worker.failed[1] < watch.seen_at or self.is_private:
                    self._give_up(worker, worker.failed[0], place or "")
            elif worker.facts is None:
                starts = worker.has_place or self.is_private
                if starts and now - worker.since >= self.start_seconds:
                    late = f"A worker did not answer within {in_words(self.start_seconds)} (ORCH_WORKER_START_SECONDS)"
                    self._strike(worker, place or "", late)
            elif worker.node in draining and self._workers.is_free(worker):
                self._stops.kill(worker)
            elif worker.node in draining and worker.order is not None and worker.kill_at is None:
                self._stops.preempt(worker)
        watch.workers = tuple(one.ray_id for one in self._workers.values() if one.facts is None)

    def _note_answer(self, worker: RayWorker) -> None:
        """Note where a worker runs, or why it cannot."""
        answer, error = answer_to(worker.answer)
        if error is not None:
            worker.failed = error, time.monotonic()
            return
        facts = WorkerFacts.model_validate_json(answer)
        if facts.problem:
            self._usable.rule_out(facts.node, f"On {facts.host}: {facts.problem}")
            self._stops.kill(worker)
            return
        self._warnings |= {facts.warning} - {""}
        self._usable.note_start(facts.node)
        worker.facts = facts
        self.places = max(self.places, facts.places)
        for _ in range(facts.places - 1):
            self._last_id += 1
            self._workers[self._last_id] = replace(worker, id=self._last_id)

    def _give_up(self, worker: RayWorker, error: RayError, place: str) -> None:
        """Give up a worker that died while it started; its machine is to blame unless that has died too."""
        node_is_gone = reason_of_loss(error) is StopReason.NODE_LOST or (place and place not in self.nodes())
        if node_is_gone and not self.is_private:
            self._stops.kill(worker)
        else:
            self._strike(worker, place, last_line(error))

    def _strike(self, worker: RayWorker, node: str, why: str) -> None:
        """Give up a worker that did not start, and after some of them its node."""
        self._stops.kill(worker)
        self._usable.strike(node, why, self.machines.end_of_worker_log)

    def _collect(self, worker: RayWorker) -> None:
        """Note how an attempt ended."""
        answer, error = answer_to(worker.call)
        if worker.order is None:
            return
        if error is None:
            result = JobResult.model_validate_json(answer)
            self._ends.add(Ended(worker.id, result, worker.node, is_told=True))
            worker.end_job()
            if result.stop_reason is StopReason.PREEMPTED or result.device_failed:  # every further job would end so
                self._stops.take_no_more(worker)
            self._stops.let_go(worker)
            return
        reason = reason_of_loss(error)
        if reason is StopReason.CODE_RAISED:
            self._ends.end(worker, reason, error)
            worker.end_job()
            self._stops.let_go(worker)
            return
        if reason in LOSSES:
            self._stops.lose(worker, reason, error)
            return
        self._ends.end(worker, reason, error)
        self._stops.kill(worker, reason)

    def _lose_ray(self, problem: str) -> None:
        """End all attempts, because Ray has gone: it would keep their calls and never run them."""
        if self._watch is not None:
            self._watch.stop()
        self._watch = None
        self._ends.lose_ray(self._workers.values(), self._joining.lose(problem))
        self._workers.clear()
        if self.is_private:
            self.machines.join()  # here, because only the main thread can shield it from a closed terminal
            self._begin()
        else:
            self._joining.begin()

    def warnings(self) -> frozenset[str]:
        """See `WorkerPool.warnings`."""
        return self._warnings

    def progress(self) -> dict[int, Progress]:
        """See `WorkerPool.progress`. Never waits for a worker."""
        return self._listening.hear(self._workers.values())

    def stop(self) -> None:
        """See `WorkerPool.stop`."""
        self._stops.stop_all()

    def interrupt(self, worker: int) -> None:
        """See `WorkerPool.interrupt`."""
        if worker in self._workers:
            self._stops.interrupt(self._workers[worker])

    def close(self) -> None:
        """See `WorkerPool.close`."""
        if self._watch is not None:
            self._watch.stop()
        self._stops.kill_all(CALL_SECONDS)
