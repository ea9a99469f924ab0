"""In every reachable state a job is finished at most once, and none stays running without a driver."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from orchestrator.execution.retry_policy import WITH_SWEEP
from orchestrator.ledger.job_moves import repair_torn_moves
from orchestrator.ledger.locks import Locks
from schemas.errors import SweepBusy
from schemas.lifecycle import StopReason
from tests.support.lifeworld import JOBS, MOST_TRIES, Fate, Killed, R, S, World

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from tests.conftest import Store

UP, ORDINARY, INTERPRETABLE = (job.title for job in JOBS)
SCRIPTS: dict[str, dict[str, list[StopReason]]] = {
    "all well": {},
    "workers lost": {UP: [R.WORKER_LOST], ORDINARY: [R.WORKER_LOST, R.WORKER_LOST]},
    "too little memory": {UP: [R.OUT_OF_MEMORY], INTERPRETABLE: [R.OUT_OF_MEMORY, R.OUT_OF_MEMORY]},
    "one that diverges": {ORDINARY: [R.DIVERGED]},
    "one that starts another fails": {UP: [R.BAD_DATA]},
    "taken for replaced": {UP: [R.SUPERSEDED], ORDINARY: [R.NODE_LOST, R.PREEMPTED]},
}


def effects_of(folder: Path, script: dict[str, list[StopReason]]) -> int:
    return World(folder).drive(script=copy(script)).effects


def copy(script: dict[str, list[StopReason]]) -> dict[str, list[StopReason]]:
    return {title: list(reasons) for title, reasons in script.items()}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_driver_that_dies_between_any_two_effects_loses_and_repeats_nothing(tmp_path: Path, name: str) -> None:
    script = SCRIPTS[name]
    ends = (S.SUCCEEDED, S.FAILED)
    effects = effects_of(tmp_path / "first", script)
    assert effects >= 10
    for n in range(1, effects + 1):
        world = World(tmp_path / str(n))
        fate = world.drive(fate=Fate(dies_before=n), script=copy(script))
        assert fate.dead
        world.drive()
        world.requeue()
        world.drive()
        world.check_all_done(ends)
        assert len(world.finished) == len(JOBS)
        assert len(world.starts) <= sum(map(len, script.values())) + len(JOBS) + 2


@pytest.mark.parametrize("outlived", [False, True])
def test_an_end_that_the_worker_reached_and_the_driver_did_not_hear_is_not_reached_again(
    tmp_path: Path, outlived: bool
) -> None:
    """Before its death a driver may not have heard its worker, or its worker may finish after that."""
    unheard = 0
    for n in range(1, effects_of(tmp_path / "first", {}) + 1):
        world = World(tmp_path / str(n))
        world.drive(fate=Fate(dies_before=n), outlived=outlived)
        unheard += len(world.ends) - len(world.finished)
        before = len(world.starts)
        world.drive()
        world.check_all_done()
        assert len(world.starts) - before <= len(JOBS) - len(world.ends.keys() & set(world.starts[:before]))
    assert unheard > 0


def test_no_job_stays_running_after_a_driver_that_only_looked_in(tmp_path: Path) -> None:
    """The next driver requeues what a dead one left running, even if it is stopped before it starts a job."""
    for n in range(1, effects_of(tmp_path / "first", {}) + 1):
        world = World(tmp_path / str(n))
        world.drive(fate=Fate(dies_before=n))
        world.drive(stopped=True)
        assert S.RUNNING not in {record.state for record in world.ledger.jobs().values()}
        world.drive()
        world.check_all_done()


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_another_sweep_of_the_same_jobs_may_come_and_die_at_any_time(tmp_path: Path, turn: int) -> None:
    for n in range(1, 40):
        world, turns = World(tmp_path / str(n)), 0

        def visit(pool: object, world: World = world, n: int = n) -> None:
            nonlocal turns
            turns += 1
            if turns == turn:
                world.meanwhile = lambda pool: None
                world.drive("t", fate=Fate(dies_before=n))

        world.meanwhile = visit
        world.drive(slots=1)
        world.check_all_done()
        assert len(world.starts) <= len(JOBS) + 1


def test_two_deaths_in_a_row_lose_and_repeat_nothing(tmp_path: Path) -> None:
    """The second driver may be killed while it repairs what the first one left."""
    effects = effects_of(tmp_path / "first", {})
    for n in range(1, effects + 1, 2):
        for m in range(1, effects + 1, 2):
            world = World(tmp_path / f"{n}-{m}")
            world.drive(fate=Fate(dies_before=n))
            world.drive(fate=Fate(dies_before=m))
            world.drive()
            world.check_all_done()


@pytest.mark.parametrize("reason", [reason for reason in StopReason if reason not in WITH_SWEEP])
def test_every_budget_is_bounded_and_every_sweep_ends(tmp_path: Path, reason: StopReason) -> None:
    world = World(tmp_path)
    if reason is R.FINISHED:
        return
    world.drive(script={title: [reason] * 500 for title in (UP, ORDINARY, INTERPRETABLE)})
    assert len(world.starts) <= MOST_TRIES
    assert world.ledger.get(JOBS[0].key).state in (S.FAILED, S.CANCELLED)


@pytest.mark.parametrize("title", [UP, ORDINARY])
def test_each_driver_tries_a_full_disk_once_and_the_one_that_finds_room_ends_the_sweep(
    tmp_path: Path, title: str
) -> None:
    world = World(tmp_path)
    for life in range(1, 4):
        world.drive(script={title: [R.DISK_FULL] * 500})
        assert sum(key == JOBS[(UP, ORDINARY).index(title)].key for key, _ in world.starts) == life
    world.drive()
    world.check_all_done()


def test_reasons_that_alternate_are_bounded_too(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.drive(script={UP: [R.WORKER_LOST, R.OUT_OF_MEMORY, R.CODE_RAISED, R.STORE_UNREACHABLE, R.PREEMPTED] * 100})
    assert len(world.starts) <= MOST_TRIES
    assert world.ledger.get(JOBS[0].key).state is S.FAILED


def test_an_outage_at_any_effect_stops_in_order_and_loses_nothing(tmp_path: Path) -> None:
    """Without retries, as after an outage of any length at that place."""
    effects = effects_of(tmp_path / "first", {})
    for n in range(1, effects + 1):
        world = World(tmp_path / str(n))
        world.drive(fate=Fate(away=range(n, n + 3)))
        world.drive()
        world.check_all_done()


class Lifecycle(RuleBasedStateMachine):
    """Any order of drivers that end, are killed or lose their store, and of users who cancel, pause and requeue."""

    @initialize()
    def begin(self) -> None:
        self.world = World(Path(mkdtemp()))

    reasons = st.lists(
        st.sampled_from(
            [R.FINISHED, R.WORKER_LOST, R.NODE_LOST, R.PREEMPTED, R.OUT_OF_MEMORY, R.CODE_RAISED, R.DIVERGED,
             R.STORE_UNREACHABLE, R.SUPERSEDED, R.DISK_FULL]
        ),
        max_size=3,
    )  # fmt: skip
    scripts = st.fixed_dictionaries(dict.fromkeys((UP, ORDINARY, INTERPRETABLE), reasons))
    fates = st.builds(
        Fate,
        st.none() | st.integers(1, 40),
        st.lists(st.integers(1, 40), max_size=2),
    )
    visits = st.lists(
        st.tuples(
            st.integers(1, 8),
            st.sampled_from(["cancel", "pause", "cancel job", "second driver", "another sweep"]),
            st.integers(0, 12),
        ),
        max_size=2,
    )

    @rule(fate=fates, script=scripts, slots=st.integers(1, 3), visits=visits, outlived=st.booleans())
    def drive(
        self, fate: Fate, script: dict[str, list[StopReason]], slots: int, visits: list[Any], outlived: bool
    ) -> None:
        turns = 0

        def meanwhile(pool: object) -> None:
            nonlocal turns
            turns += 1
            self.world.meanwhile = lambda pool: None  # drivers that interrupt this one are not interrupted
            for turn, kind, number in visits:
                if turn == turns:
                    self.visit(kind, number)
            self.world.meanwhile = meanwhile

        self.world.meanwhile = meanwhile
        self.world.drive(fate=fate, script=script, slots=slots, outlived=outlived)
        self.world.meanwhile = lambda pool: None

    def visit(self, kind: str, number: int) -> None:
        if kind == "second driver":
            with pytest.raises(SweepBusy), Locks(self.world.folder / "locks").sweep("s", self.world.time):
                pass
        elif kind == "another sweep":  # it shares the jobs, and is killed before it would wait for ours for ever
            self.world.drive("t", fate=Fate(dies_before=5 + 3 * number))
        else:
            self.world.request(kind.split()[0], number % len(JOBS) if kind == "cancel job" else None)

    @rule(sweep=st.sampled_from(["s", "t"]), fate=fates)
    def another_sweep_of_the_same_jobs(self, sweep: str, fate: Fate) -> None:
        self.world.drive(sweep, fate=fate)

    @rule()
    def requeue(self) -> None:
        self.world.requeue()

    @rule(job=st.none() | st.integers(0, 2))
    def cancel(self, job: int | None) -> None:
        self.world.cancel(job)

    @invariant()
    def nothing_is_broken(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        """Undisturbed, and with cancelled jobs requeued, every job succeeds."""
        try:
            self.world.drive()
            assert S.RUNNING not in {record.state for record in self.world.ledger.jobs().values()}
            self.world.requeue()
            self.world.drive()
            self.world.check_all_done()
        finally:
            rmtree(self.world.folder)


Lifecycle.TestCase.settings = settings(
    max_examples=40,
    stateful_step_count=8,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestLifecycle = Lifecycle.TestCase


CLIENT_EFFECTS = frozenset({"create_run", "update_run", "log_batch", "set_terminated", "set_tag", "log_artifact",
                            "delete_run"})  # fmt: skip


class MortalClient:
    """MLflow's client in a process that is killed before one of its writes."""

    def __init__(self, real: MlflowClient, dies_before: int | None) -> None:
        self.real, self.dies_before, self.writes = real, dies_before, 0

    def __getattr__(self, name: str) -> Any:
        call: Callable[..., Any] = getattr(self.real, name)

        def mortal(*arguments: Any, **named: Any) -> Any:
            self.writes += name in CLIENT_EFFECTS
            if self.dies_before is not None and self.writes >= self.dies_before:
                raise Killed
            return call(*arguments, **named)

        return mortal


@pytest.mark.slow
def test_mlflow_has_one_true_run_per_job_wherever_its_driver_dies(store: Store, tmp_path: Path) -> None:
    """Kill the driver between any two writes to the database, not only between two moves of a job."""
    from orchestrator.ledger.mlflow_ledger import MlflowLedger

    jobs = JOBS[:2]

    def ledger_of(experiment: str, dies_before: int | None = None) -> tuple[MlflowLedger, MortalClient]:
        client = MortalClient(store.client, dies_before)
        return MlflowLedger(client, store.uri, experiment), client  # type: ignore[arg-type]

    def live(world: World, ledger: MlflowLedger) -> None:
        world.ledger = ledger
        with suppress(Killed):  # raised again when the world checks the store
            world.drive(repair=lambda: repair_torn_moves(ledger, ledger.job_runs(), lambda record: True))

    def new_world(name: str) -> tuple[World, str]:
        experiment = f"model-{uuid4().hex}"
        store.client.create_experiment(experiment, artifact_location=str(tmp_path / name))
        return World(tmp_path / f"world-{name}", jobs=jobs), experiment

    world, experiment = new_world("undisturbed")
    ledger, client = ledger_of(experiment)
    live(world, ledger)
    assert client.writes > 20
    for n in range(1, client.writes + 1):
        world, experiment = new_world(str(n))
        live(world, ledger_of(experiment, dies_before=n)[0])
        survivor, _ = ledger_of(experiment)
        live(world, survivor)
        world.check_all_done()
        runs = survivor.job_runs()
        assert sorted(run.key for run in runs) == sorted(job.key for job in jobs), n
        assert {run.status for run in runs} == {"FINISHED"}, n
