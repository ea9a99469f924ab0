"""The contract of every ledger. A new backend is added to `LEDGERS`, and is complete when these tests pass."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import pytest

from orchestrator.ledger.base import RUN_STATUS, Ledger, known_sweep
from orchestrator.ledger.job_moves import repair_torn_moves
from orchestrator.ledger.lease import Lease
from orchestrator.ledger.memory import InMemoryLedger
from orchestrator.ledger.mlflow_ledger import MlflowLedger
from orchestrator.ledger.mlflow_sweeps import TAGS_AT_ONCE
from orchestrator.ledger.plan_tags import NAMES_PART, PLAN_FILE, PLAN_PART
from orchestrator.ledger.records import ControlRequest, RunningJob, StoredPlan, SweepProgress
from orchestrator.ledger.tags import PLAN_TAG, PROGRESS_TAG
from schemas.errors import IllegalTransition, StoreError, StoreUnreachable
from schemas.job import JobSpec
from schemas.lifecycle import JobState, StopReason
from schemas.results import CheckpointPointer, Failure, JobResult
from schemas.sweep import Resources
from tests.support.doubles import metrics, plan_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from tests.conftest import Store

SPEC, OTHER = plan_of("smoke", categories=("cat",), backbones=("alexnet",), sets={"weights.source": "random"}).jobs
PLAN = StoredPlan.of("s", "laptop", None, [SPEC, OTHER], frozenset(), Resources())


def mlflow_ledger(store: Store, client: Any = None) -> MlflowLedger:
    """A real ledger in a new experiment, with a client that misbehaves if one is given."""
    name = f"ledger-{uuid4().hex}"
    store.client.create_experiment(name, artifact_location=f"{store.uri.removeprefix('sqlite:///')}-{name}")
    return MlflowLedger(client or store.client, store.uri, experiment=name)


LEDGERS: dict[str, Callable[[Store], Ledger]] = {"memory": lambda store: InMemoryLedger(), "mlflow": mlflow_ledger}


@pytest.fixture(params=LEDGERS)
def ledger(request: pytest.FixtureRequest, store: Store) -> Ledger:
    made = LEDGERS[request.param](store)
    made.begin_sweep(PLAN, now=1.0)
    return made


def walk(ledger: Ledger, *states: str) -> None:
    for now, state in enumerate(states, start=2):
        ledger.move(SPEC.key, JobState(state), now=float(now))


def test_an_added_job_is_queued_with_its_spec(ledger: Ledger) -> None:
    record = ledger.add(SPEC, "s", now=1.0)
    assert record.state is JobState.QUEUED
    assert JobSpec.model_validate(record.fields) == SPEC
    assert ledger.get(SPEC.key) == record


def test_adding_twice_keeps_the_first_record(ledger: Ledger) -> None:
    ledger.add(SPEC, "s", now=1.0)
    walk(ledger, "running")
    again = ledger.add(SPEC, "s", now=9.0)
    assert (again.state, again.last_sign_at) == (JobState.RUNNING, 2.0)
    assert len(ledger.jobs()) == 1


def test_an_illegal_move_changes_nothing(ledger: Ledger) -> None:
    ledger.add(SPEC, "s", now=1.0)
    with pytest.raises(IllegalTransition, match="cannot become succeeded"):
        ledger.move(SPEC.key, JobState.SUCCEEDED, now=2.0)
    assert ledger.get(SPEC.key).state is JobState.QUEUED


def test_an_unknown_job_says_how_to_list_known_ones(ledger: Ledger) -> None:
    with pytest.raises(StoreError, match="orch status"):
        ledger.get("no-such-job")


def test_a_job_that_runs_again_is_the_same_record_in_its_next_attempt(ledger: Ledger) -> None:
    first = ledger.add(SPEC, "s", now=1.0)
    walk(ledger, "running", "requeued", "queued", "running")
    record = ledger.get(SPEC.key)
    assert (record.attempt, record.last_sign_at, record.run_id) == (2, 5.0, first.run_id)


def test_a_result_and_its_reason_are_kept(ledger: Ledger) -> None:
    ledger.add(SPEC, "s", now=1.0)
    walk(ledger, "running")
    result = JobResult(
        job_key=SPEC.key,
        attempt=1,
        stop_reason=StopReason.FINISHED,
        metrics=metrics(landmark_instability={"head": 0.1}),
        checkpoint=CheckpointPointer(path="/x.pt", epoch=3, sha256="ab"),
    )
    ledger.move(SPEC.key, JobState.SUCCEEDED, now=3.0, reason=StopReason.FINISHED, result=result)
    record = ledger.get(SPEC.key)
    assert (record.stop_reason, record.result) == (StopReason.FINISHED, result)


@pytest.mark.parametrize("character", ["x", '"', "\x1b"])
def test_a_failure_of_any_length_is_kept_with_its_last_lines(ledger: Ledger, character: str) -> None:
    ledger.add(SPEC, "s", now=1.0)
    walk(ledger, "running")
    failure = Failure(kind="Boom", message=character * 9000, traceback=character * 20000 + "the last line")
    result = JobResult(job_key=SPEC.key, attempt=1, stop_reason=StopReason.CODE_RAISED, failure=failure)
    ledger.move(SPEC.key, JobState.FAILED, now=3.0, reason=StopReason.CODE_RAISED, result=result)
    kept = ledger.get(SPEC.key).result
    assert kept is not None
    assert kept.failure is not None
    assert kept.failure.kind == "Boom"
    assert kept.failure.traceback.endswith("the last line")


def test_a_new_attempt_does_not_forget_the_earlier_result(ledger: Ledger) -> None:
    ledger.add(SPEC, "s", now=1.0)
    walk(ledger, "running")
    lost = JobResult(job_key=SPEC.key, attempt=1, stop_reason=StopReason.WORKER_LOST)
    ledger.move(SPEC.key, JobState.REQUEUED, now=3.0, reason=StopReason.WORKER_LOST, result=lost)
    record = ledger.move(SPEC.key, JobState.QUEUED, now=4.0, facts={"host": "h", "sweep": "t"})
    assert (record.result, record.driven_by, record.stop_reason) == (lost, "t", None)
    assert ledger.get(SPEC.key) == record


def test_jobs_are_read_in_bulk_and_by_key(ledger: Ledger) -> None:
    ledger.add(SPEC, "s", now=1.0)
    ledger.add(OTHER, "s", now=1.0)
    assert set(ledger.jobs()) == {SPEC.key, OTHER.key}
    assert set(ledger.jobs([OTHER.key, "unknown"])) == {OTHER.key}


def test_standings_are_those_of_the_jobs(ledger: Ledger) -> None:
    assert ledger.standings() == {}
    ledger.add(SPEC, "s", now=1.0)
    ledger.add(OTHER, "s", now=1.0)
    ledger.move(OTHER.key, JobState.RUNNING, now=2.0, facts={"sweep": "t"})
    assert ledger.standings() == {SPEC.key: (JobState.QUEUED, "s"), OTHER.key: (JobState.RUNNING, "t")}


def test_beginning_a_sweep_twice_keeps_the_first(ledger: Ledger) -> None:
    again = ledger.begin_sweep(PLAN.model_copy(update={"profile": "paper"}), now=9.0)
    assert (again.started_at, again.plan) == (1.0, PLAN)
    assert len(ledger.sweeps()) == 1


def test_a_sweep_that_is_begun_again_has_its_photographs_where_they_are_now(ledger: Ledger) -> None:
    for root in ("/old", "/new", None):
        moved = PLAN.model_copy(update={"data_root": root})
        assert ledger.begin_sweep(moved, now=9.0).plan == moved
        assert known_sweep(ledger, "s").plan == moved


def test_the_progress_of_a_sweep_is_told_and_withdrawn(ledger: Ledger) -> None:
    job = RunningJob(key=SPEC.key, phase="training", epoch=3, epochs=10, epoch_seconds=1.5)
    for told in (SweepProgress(at=2.0, running=(job,), low=3.0, high=4.0, unknown=1), None):
        ledger.set_progress("s", told)
        assert known_sweep(ledger, "s").progress == told


@pytest.mark.parametrize("character", ["x", '"', "\x1b"])
def test_a_long_note_about_the_progress_is_told_as_far_as_it_fits(store: Store, character: str) -> None:
    ledger = mlflow_ledger(store)
    ledger.begin_sweep(PLAN, now=1.0)
    jobs = tuple(RunningJob(key=f"{n:012x}", phase=character * 300) for n in range(40))
    ledger.set_progress("s", SweepProgress(at=2.0, running=jobs, low=3.0))
    told = known_sweep(ledger, "s").progress
    assert told is not None
    assert told.low == 3.0
    assert told.running == jobs[: len(told.running)] != ()


def test_progress_that_cannot_be_read_stops_nobody(store: Store) -> None:
    ledger = mlflow_ledger(store)
    record = ledger.begin_sweep(PLAN, now=1.0)
    store.client.set_tag(record.run_id, PROGRESS_TAG, '{"at": 2.0, "runn')
    assert known_sweep(ledger, "s").progress is None
    ledger.set_lease("s", Lease(host="h", pid=1, since=1.0, sign_at=1.0))


def test_a_lease_is_stamped_renewed_and_lifted(ledger: Ledger) -> None:
    lease = Lease(host="h", pid=1, since=1.0, sign_at=1.0)
    for stamp in (lease, lease.model_copy(update={"sign_at": 2.0}), None):
        ledger.set_lease("s", stamp)
        assert known_sweep(ledger, "s").lease == stamp


def test_a_request_is_pending_until_it_is_removed_and_the_oldest_comes_first(ledger: Ledger) -> None:
    later, earlier = (ControlRequest(id=f"r{at}", kind="cancel", keys=("k",), at=at) for at in (2.0, 1.0))
    for request in (later, earlier):
        ledger.add_request("s", request)
        ledger.add_request("s", request)
    assert ledger.pending_requests("s") == [earlier, later]
    for _ in range(2):
        ledger.remove_request("s", earlier)
    assert ledger.pending_requests("s") == [later]


def test_nothing_is_written_to_a_sweep_that_has_not_begun(ledger: Ledger) -> None:
    request = ControlRequest(id="r", kind="pause", at=1.0)
    calls: list[Callable[[], object]] = [
        lambda: ledger.set_lease("t", None),
        lambda: ledger.set_progress("t", None),
        lambda: ledger.conclude_sweep("t", "", {}, "FINISHED"),
        lambda: ledger.add_request("t", request),
        lambda: ledger.pending_requests("t"),
        lambda: ledger.remove_request("t", request),
        lambda: ledger.release_dead_driver("t"),
    ]
    for call in calls:
        with pytest.raises(StoreError, match="No sweep is called 't'"):
            call()


def test_a_dead_driver_is_released(ledger: Ledger) -> None:
    ledger.set_lease("s", Lease(host="h", pid=1, since=1.0, sign_at=1.0))
    ledger.release_dead_driver("s")
    assert known_sweep(ledger, "s").lease is None
    (entry,) = ledger.sweep_runs()
    assert (entry.record.name, entry.status, entry.problem) == ("s", "KILLED", "")


def test_the_runs_of_jobs_are_listed_with_their_records_and_none_is_a_duplicate(ledger: Ledger) -> None:
    ledger.add(SPEC, "s", now=1.0)
    walk(ledger, "running", "requeued")
    record = ledger.get(SPEC.key)
    (run,) = ledger.job_runs()
    assert (run.record, run.key, run.run_id, run.status, run.problem) == (
        record, SPEC.key, record.run_id, RUN_STATUS[record.state], "",
    )  # fmt: skip
    assert not ledger.delete_duplicate_runs(SPEC.key)


def test_sweeps_are_listed_newest_first(ledger: Ledger) -> None:
    ledger.begin_sweep(PLAN.model_copy(update={"name": "later"}), now=5.0)
    assert [sweep.name for sweep in ledger.sweeps()] == ["later", "s"]


def test_an_unknown_sweep_lists_the_nearest(ledger: Ledger) -> None:
    ledger.begin_sweep(PLAN.model_copy(update={"name": "smoke-laptop"}), now=5.0)
    assert ledger.sweep("nix") is None
    with pytest.raises(StoreError, match="Did you mean 'smoke-laptop'"):
        known_sweep(ledger, "smoke-lapto")


def test_a_concluded_sweep_can_go_on(ledger: Ledger) -> None:
    for _ in range(2):
        ledger.conclude_sweep("s", "a note", {"jobs_done": 1.0}, "KILLED")
    ledger.set_lease("s", Lease(host="h", pid=1, since=1.0, sign_at=1.0))
    assert known_sweep(ledger, "s").lease is not None


# -- MLflow only -------------------------------------------------------------------------------------------------


def test_mlflows_own_status_tells_the_truth(store: Store) -> None:
    ledger = mlflow_ledger(store)
    ledger.begin_sweep(PLAN, now=1.0)
    run_id = ledger.add(SPEC, "s", now=1.0).run_id
    seen = []
    for now, state in enumerate(["running", "failed", "requeued", "queued", "running", "succeeded"], start=2):
        ledger.move(SPEC.key, JobState(state), now=float(now))
        seen.append(store.client.get_run(run_id).info.status)
    assert seen == ["RUNNING", "FAILED", "SCHEDULED", "SCHEDULED", "RUNNING", "FINISHED"]


def test_a_job_whose_driver_died_before_it_began_does_not_stay_running_in_mlflow(store: Store) -> None:
    ledger = mlflow_ledger(store)
    ledger.begin_sweep(PLAN, now=1.0)
    run_id = ledger.add(SPEC, "s", now=1.0).run_id
    repair_torn_moves(ledger, ledger.job_runs(), is_settled=lambda record: True)
    assert store.client.get_run(run_id).info.status == RUN_STATUS[JobState.QUEUED]
    walk(ledger, "running")
    assert store.client.get_run(run_id).info.status == "RUNNING"


def test_a_job_lies_under_its_sweep_with_a_name_and_columns_for_people(store: Store) -> None:
    ledger = mlflow_ledger(store)
    sweep = ledger.begin_sweep(PLAN, now=1.0)
    run = store.client.get_run(ledger.add(SPEC, "s", now=1.0).run_id)
    assert run.info.run_name == "voc-cat alexnet ordinary"
    assert run.data.tags["mlflow.parentRunId"] == sweep.run_id
    assert [run.data.tags[name] for name in ("category", "backbone", "variant", "images")] == [
        "voc-cat", "alexnet", "ordinary", "generated animals",
    ]  # fmt: skip


def test_the_sweeps_note_and_numbers_are_logged_once(store: Store) -> None:
    ledger = mlflow_ledger(store)
    sweep = ledger.begin_sweep(PLAN, now=1.0)
    for _ in range(2):
        ledger.conclude_sweep("s", "**table**", {"jobs_done": 2.0}, "FINISHED")
    run = store.client.get_run(sweep.run_id)
    assert (run.info.status, run.data.tags["mlflow.note.content"]) == ("FINISHED", "**table**")
    assert len(store.client.get_metric_history(sweep.run_id, "jobs_done")) == 1


def test_a_damaged_plan_is_not_taken_for_one(store: Store) -> None:
    ledger = mlflow_ledger(store)
    sweep = ledger.begin_sweep(PLAN, now=1.0)
    store.client.set_tag(sweep.run_id, "orch.plan_sha256", "0")
    with pytest.raises(StoreError, match=r"plan of sweep s .* is damaged.*cannot be resumed.*new `--name`"):
        _ = known_sweep(ledger, "s").plan


def planned_by_an_earlier_orch(store: Store, ledger: MlflowLedger) -> tuple[str, Path]:
    """Begin the sweep as an earlier version of orch did: with its plan in a file. Return its run and the file."""
    run_id = ledger.begin_sweep(PLAN, now=1.0).run_id
    content = PLAN.model_dump_json()
    store.client.log_text(run_id, content, PLAN_FILE)
    store.client.set_tag(run_id, PLAN_TAG, hashlib.sha256(content.encode()).hexdigest())
    for part in (PLAN_PART, NAMES_PART):
        store.client.delete_tag(run_id, f"{part}0")
    return run_id, Path(str(store.client.get_run(run_id).info.artifact_uri)) / PLAN_FILE


def test_the_plan_of_an_earlier_orch_is_read_from_its_file(store: Store) -> None:
    ledger = mlflow_ledger(store)
    run_id, _ = planned_by_an_earlier_orch(store, ledger)
    assert known_sweep(ledger, "s").plan == PLAN
    assert ledger.begin_sweep(PLAN, now=2.0).run_id == run_id


def test_a_plan_needs_no_files(store: Store) -> None:
    ledger = mlflow_ledger(store)
    run_id = ledger.begin_sweep(PLAN, now=1.0).run_id
    assert known_sweep(ledger, "s").plan == PLAN
    assert store.client.list_artifacts(run_id) == []


def test_a_plan_that_takes_several_tags_is_whole_again(store: Store) -> None:
    noise = ["".join(uuid4().hex for _ in range(100)) for _ in range(400)]  # which cannot be compressed
    plan = PLAN.model_copy(update={"jobs": tuple({"noise": text} for text in noise)})
    ledger = mlflow_ledger(store)
    run_id = ledger.begin_sweep(plan, now=1.0).run_id
    assert known_sweep(ledger, "s").plan == plan
    parts = [name for name in store.client.get_run(run_id).data.tags if name.startswith(PLAN_PART)]
    assert len(parts) > TAGS_AT_ONCE
    store.client.delete_tag(run_id, f"{PLAN_PART}{len(parts) // 2}")
    with pytest.raises(StoreError, match=r"plan of sweep s .* is damaged"):
        _ = known_sweep(ledger, "s").plan


def test_the_names_of_a_plan_are_read_without_it(store: Store) -> None:
    ledger = mlflow_ledger(store)
    run_id = ledger.begin_sweep(PLAN, now=1.0).run_id
    store.client.set_tag(run_id, f"{PLAN_PART}0", "damaged")
    assert [outline.key for outline in known_sweep(ledger, "s").outlines] == [SPEC.key, OTHER.key]
    with pytest.raises(StoreError, match="is damaged"):
        _ = known_sweep(ledger, "s").outlines[0].fields
    store.client.set_tag(run_id, f"{NAMES_PART}0", "damaged")
    with pytest.raises(StoreError, match=r"\(the tags orch.names.0, ... of its run\) is damaged"):
        _ = known_sweep(ledger, "s").names


def test_a_deleted_plan_is_missed_only_by_those_who_need_it(store: Store) -> None:
    ledger = mlflow_ledger(store)
    _, file = planned_by_an_earlier_orch(store, ledger)
    lease = Lease(host="h", pid=1, since=1.0, sign_at=1.0)
    ledger.set_lease("s", lease)
    file.unlink()
    assert [found.lease for found in ledger.sweeps()] == [known_sweep(ledger, "s").lease] == [lease]
    with pytest.raises(StoreError, match=r"plan of sweep s .* is gone.*cannot be resumed.*new `--name`"):
        _ = known_sweep(ledger, "s").plan


def test_a_move_that_is_made_again_with_the_same_moment_changes_nothing(ledger: Ledger) -> None:
    ledger.add(SPEC, "s", now=1.0)
    walk(ledger, "running")
    first = ledger.move(SPEC.key, JobState.REQUEUED, now=3.0, reason=StopReason.WORKER_LOST)
    assert ledger.move(SPEC.key, JobState.REQUEUED, now=3.0, reason=StopReason.WORKER_LOST) == first
    with pytest.raises(IllegalTransition):
        ledger.move(SPEC.key, JobState.REQUEUED, now=4.0)


class Killed(BaseException):
    """Raised in place of killing a driver."""


@pytest.mark.parametrize("effect", ["set_terminated", "update_run"])
def test_a_move_torn_between_state_and_status_is_made_good(
    store: Store, monkeypatch: pytest.MonkeyPatch, effect: str
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise Killed

    ledger = mlflow_ledger(store)
    ledger.begin_sweep(PLAN, now=1.0)
    run_id = ledger.add(SPEC, "s", now=1.0).run_id
    walk(ledger, "running")
    to = JobState.SUCCEEDED if effect == "set_terminated" else JobState.REQUEUED
    with monkeypatch.context() as patch:
        patch.setattr(ledger.client, effect, killed)
        with pytest.raises(Killed):
            ledger.move(SPEC.key, to, now=3.0)
    after = MlflowLedger(store.client, store.uri, experiment=ledger.experiment)
    assert after.get(SPEC.key).state is to
    assert store.client.get_run(run_id).info.status != RUN_STATUS[to]
    repair_torn_moves(after, after.job_runs(), is_settled=lambda record: False)
    assert store.client.get_run(run_id).info.status != RUN_STATUS[to]
    repair_torn_moves(after, after.job_runs(), is_settled=lambda record: True)
    info = store.client.get_run(run_id).info
    assert info.status == RUN_STATUS[to]
    assert info.end_time == (3000 if to.has_ended else None)


def test_a_sweep_that_died_before_its_plan_was_whole_is_begun_again(store: Store) -> None:
    ledger = mlflow_ledger(store)
    sweep = ledger.begin_sweep(PLAN, now=1.0)
    store.client.delete_tag(sweep.run_id, "orch.plan_sha256")
    half = ledger.sweep("s")
    assert half is not None
    assert half.plan is None
    assert ledger.begin_sweep(PLAN, now=2.0).plan == PLAN


class Repeating:
    """MLflow's client when the answer to a create request is lost and it repeats the request: two runs are created."""

    def __init__(self, real: MlflowClient, *, gives_up: bool = False) -> None:
        self.real, self.gives_up = real, gives_up

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def create_run(self, *arguments: Any, **named: Any) -> Any:
        for _ in range(2):
            made = self.real.create_run(*arguments, start_time=1000, **named)  # part of the request
        if self.gives_up:
            raise StoreUnreachable("no answer")
        return made


@pytest.mark.parametrize("again", range(4))  # the order of the two in the store is random
def test_a_creation_that_the_server_did_twice_leaves_one_run(store: Store, again: int) -> None:
    ledger = mlflow_ledger(store, Repeating(store.client))
    ledger.begin_sweep(PLAN, now=1.0)
    record = ledger.add(SPEC, "s", now=1.0)
    assert [run.run_id for run in ledger.job_runs()] == [record.run_id]
    assert len(ledger.sweep_runs()) == 1
    assert MlflowLedger(store.client, store.uri, ledger.experiment).get(SPEC.key).run_id == record.run_id


def test_a_creation_that_the_server_did_twice_and_never_answered_leaves_one_run_once_it_is_asked_again(
    store: Store,
) -> None:
    ledger = mlflow_ledger(store, Repeating(store.client, gives_up=True))
    with pytest.raises(StoreUnreachable):
        ledger.begin_sweep(PLAN, now=1.0)
    ledger.begin_sweep(PLAN, now=1.0)
    with pytest.raises(StoreUnreachable):
        ledger.add(SPEC, "s", now=1.0)
    again = MlflowLedger(store.client, store.uri, ledger.experiment)
    assert len(again.job_runs()) == 2
    record = again.add(SPEC, "s", now=2.0)
    assert [run.run_id for run in again.job_runs()] == [record.run_id]
    assert len(again.sweep_runs()) == 1


@pytest.mark.parametrize("again", range(4))  # the order of the two in the store is random
def test_a_creation_that_the_server_repeats_late_counts_for_nothing(store: Store, again: int) -> None:
    """The client repeated a request, and the server carries out the first one after the job has begun."""
    late: list[Callable[[], Any]] = []

    class Late(Repeating):
        def create_run(self, *arguments: Any, **named: Any) -> Any:
            late.append(lambda: self.real.create_run(*arguments, start_time=1000, **named))
            return late[-1]()

    ledger = mlflow_ledger(store, Late(store.client))
    ledger.begin_sweep(PLAN, now=1.0)
    record = ledger.add(SPEC, "s", now=1.0)
    ledger.move(SPEC.key, JobState.RUNNING, 2.0, facts={"threads": "1"})
    ledger.move(SPEC.key, JobState.SUCCEEDED, 3.0, reason=StopReason.FINISHED)
    for create in late:
        create()
    after = MlflowLedger(store.client, store.uri, ledger.experiment)
    assert (after.jobs()[SPEC.key].state, after.get(SPEC.key).run_id) == (JobState.SUCCEEDED, record.run_id)
    assert [(sweep.name, sweep.plan) for sweep in after.sweeps()] == [("s", PLAN)]
    counts, does_not = after.job_runs()
    assert (counts.run_id, counts.never_began, does_not.never_began) == (record.run_id, False, True)
    assert after.delete_duplicate_runs(SPEC.key)
    assert not after.delete_duplicate_runs(SPEC.key)
    assert after.add(SPEC, "s", now=4.0).run_id == record.run_id
    after.release_dead_driver("s")
    assert [run.run_id for run in after.job_runs()] == [record.run_id]
    assert len(after.sweep_runs()) == 1


def test_who_comes_second_with_a_job_leaves_the_run_of_the_first_alone(store: Store) -> None:
    """Two machines add one job at once: the second finds the run of the first after it has created its own."""
    first = mlflow_ledger(store)
    first.begin_sweep(PLAN, now=1.0)

    class Racing(Repeating):
        def create_run(self, *arguments: Any, **named: Any) -> Any:
            first.add(SPEC, "s", now=1.0)
            first.move(SPEC.key, JobState.RUNNING, 2.0, facts={"threads": "1"})
            return self.real.create_run(*arguments, **named)

    second = MlflowLedger(cast(Any, Racing(store.client)), store.uri, first.experiment)
    record = second.add(SPEC, "s", now=1.0)
    assert (record.run_id, record.state) == (first.get(SPEC.key).run_id, JobState.RUNNING)
    assert [(run.run_id, run.status) for run in second.job_runs()] == [(record.run_id, "RUNNING")]


def test_a_run_of_another_call_is_left_for_a_person_to_look_at(store: Store) -> None:
    ledger = mlflow_ledger(store)
    ledger.begin_sweep(PLAN, now=1.0)
    record = ledger.add(SPEC, "s", now=1.0)
    tags = {**store.client.get_run(record.run_id).data.tags, "orch.call": "elsewhere"}
    experiment = store.client.get_experiment_by_name(ledger.experiment)
    other = store.client.create_run(experiment.experiment_id, tags=tags)
    assert ledger.add(SPEC, "s", now=2.0).run_id == record.run_id
    assert [run.run_id for run in ledger.job_runs()] == [record.run_id, other.info.run_id]


def test_the_attempts_of_a_run_that_was_deleted_are_counted_on(store: Store) -> None:
    """Its checkpoints are numbered by attempt, and lower numbers would count as replaced."""
    ledger = mlflow_ledger(store)
    ledger.begin_sweep(PLAN, now=1.0)
    first = ledger.add(SPEC, "s", now=1.0)
    walk(ledger, "running", "requeued", "queued", "running", "failed")
    store.client.delete_run(first.run_id)
    after = MlflowLedger(store.client, store.uri, ledger.experiment)
    assert after.jobs() == {}
    second = after.add(SPEC, "s", now=9.0)
    assert (second.run_id != first.run_id, second.state, second.attempt) == (True, JobState.QUEUED, 2)
    assert after.move(SPEC.key, JobState.RUNNING, now=10.0).attempt == 3


def test_a_foreign_run_is_named(store: Store) -> None:
    ledger = mlflow_ledger(store)
    ledger.begin_sweep(PLAN, now=1.0)
    run_id = ledger.add(SPEC, "s", now=1.0).run_id
    store.client.set_tag(run_id, "orch.state", "dreaming")
    with pytest.raises(StoreError, match=run_id):
        ledger.jobs()
