"""Handing a sweep over to a cluster: what is refused, what travels, and what the driver's first sign decides."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.execution.control import Clock
from orchestrator.execution.ray_jobs import Submission
from orchestrator.execution.submission import Parcel
from orchestrator.ledger import opening
from orchestrator.ledger.base import Ledger
from orchestrator.ledger.lease import Lease, here
from orchestrator.planning.request import SweepRequest
from orchestrator.services import submit, sweeps
from orchestrator.settings import PARCEL, Settings
from schemas.errors import DataError, OrchError, ResourceError, SpecError, StoreError, SweepBusy
from schemas.sweep import SweepSpec
from tests.support.doubles import Listener, ScriptedPool

DRIVER = Lease(host="head", pid=7, since=5.0, sign_at=5.0)


@dataclass
class Cluster:
    """The jobs API of a cluster whose drivers do what a test says."""

    does: Callable[[Parcel], Submission | None] = lambda parcel: None
    """Called for each look at the newest submission; returns its end, or None while it runs."""
    log: str = ""
    address: str = "http://head:8265"
    known: list[Submission] = field(default_factory=list)
    parcels: list[Parcel] = field(default_factory=list)

    def all(self) -> list[Submission]:
        return self.known

    def submit(self, submission_id: str, environment: dict[str, str]) -> None:
        self.parcels.append(Parcel.unpacked(environment[PARCEL]))
        self.known.append(job(submission_id))

    def find(self, submission_id: str) -> Submission:
        return self.does(self.parcels[-1]) or self.known[-1]

    def end_of_log(self, submission_id: str) -> str:
        return self.log


def job(number: str, code: int | None = None, *, is_alive: bool = True) -> Submission:
    return Submission(id=number, is_alive=is_alive, since=1700000000.0, exit_code=code, message="")


def request(name: str, **sets: Any) -> SweepRequest:
    return SweepRequest(
        sweep=SweepSpec(grid="smoke"), name=name, categories=("cat",), backbones=("alexnet",), sets=sets or None
    )


class Bench:
    def __init__(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        self.settings, self.cluster, self.now = settings, Cluster(), time.time()
        monkeypatch.setattr(submit, "_open_cluster", lambda settings: self.cluster)

    @property
    def ledger(self) -> Ledger:
        return opening.open_ledger(self.settings)

    def claims(self, name: str) -> Callable[[Parcel], None]:
        return lambda parcel: self.ledger.set_lease(name, DRIVER)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def submit(self, name: str, **sets: Any) -> submit.Submitted:
        return submit.submit_sweep(self.settings, request(name, **sets), clock=Clock(lambda: self.now, self.sleep))


@pytest.fixture
def bench(new_home: Callable[[], Settings], monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(new_home(), monkeypatch)


def test_a_plan_is_stored_and_the_driver_that_claims_it_is_named(bench: Bench) -> None:
    bench.cluster.does = bench.claims("mine")
    done = bench.submit("mine")
    record = bench.ledger.sweep("mine")
    assert record is not None
    assert record.plan is not None
    assert (done.lease, done.has_ended, done.planned_here) == (DRIVER, False, True)
    parcel = bench.cluster.parcels[0]
    assert (parcel.sweep, parcel.run_id, parcel.request) == ("mine", record.run_id, None)


def test_imported_weights_are_pushed_with_the_sweep(bench: Bench, tmp_path: Path) -> None:
    file, objects = tmp_path / "w.pt", tmp_path / "objects"
    file.write_bytes(b"weights")
    bench.settings = bench.settings.model_copy(update={"object_store": objects.as_uri()})
    bench.cluster.does = lambda parcel: job("x", 0, is_alive=False)
    done = bench.submit("mine", **{"weights.source": "file", "weights.path": str(file)})
    (line,) = done.pushed
    assert f"pushed the weights {file}" in line
    assert [path.read_bytes() for path in objects.rglob("*") if path.is_file()] == [b"weights"]
    bench.cluster.known.clear()
    assert submit.submit_resume(bench.settings, "mine", clock=Clock(lambda: bench.now, bench.sleep)).pushed == ()
    file.unlink()  # the cluster may have it
    bench.cluster.known.clear()
    assert submit.submit_resume(bench.settings, "mine", clock=Clock(lambda: bench.now, bench.sleep)).has_ended


def test_a_driven_sweep_is_refused_with_who_drives_and_since_when(bench: Bench) -> None:
    bench.cluster.does = bench.claims("mine")
    bench.submit("mine")
    now = time.time()
    bench.ledger.set_lease("mine", Lease(host=here(), pid=os.getpid(), since=now, sign_at=now))
    with pytest.raises(SweepBusy, match=rf"driven by process {os.getpid()} on .*, since .*`orch pause mine`"):
        bench.submit("mine")
    assert len(bench.cluster.parcels) == 1


def test_a_submission_whose_driver_starts_is_refused_and_a_dead_one_is_not(bench: Bench) -> None:
    first = bench.submit("mine").submission
    with pytest.raises(SweepBusy, match=f"submitted to the cluster as {first}"):
        bench.submit("mine")
    bench.cluster.known = [job(first, 0, is_alive=False), job("orch-mine-of-another-1"), job("raysubmit_1")]
    assert bench.submit("mine").submission == first.removesuffix("1") + "2"


def test_without_a_sign_it_returns_and_says_so(bench: Bench) -> None:
    done = bench.submit("mine")
    assert (done.lease, done.has_ended) == (None, False)


def test_a_driver_with_nothing_to_do_has_ended(bench: Bench) -> None:
    bench.cluster.does = lambda parcel: job("x", 0, is_alive=False)
    assert bench.submit("mine").has_ended


@pytest.mark.parametrize(
    ("code", "log", "kind", "told"),
    [
        (3, "Sweep\nerror: No photographs of voc-cat.", DataError, "^In the cluster: No photographs of voc-cat.$"),
        (5, "error: The cluster's orch is not that of", ResourceError, "^In the cluster: The cluster's orch is not"),
        (127, "sh: 1: orch: not found", ResourceError, "did not start(.|\n)*  sh: 1: orch: not found"),
        (None, "", ResourceError, "exit code None"),
    ],
)
def test_the_error_of_a_driver_that_cannot_start_is_told_here(
    bench: Bench, code: int | None, log: str, kind: type[OrchError], told: str
) -> None:
    bench.cluster.does, bench.cluster.log = lambda parcel: job("x", code, is_alive=False), log
    with pytest.raises(kind, match=told):
        bench.submit("mine")


@pytest.mark.parametrize(
    "sets", [{"data.images": "photographs"}, {"weights.source": "file", "weights.path": "/of/the/cluster.pt"}]
)
def test_what_only_the_cluster_has_is_planned_there(bench: Bench, sets: dict[str, Any]) -> None:
    done = bench.submit("mine", **sets)
    assert not done.planned_here
    assert bench.ledger.sweep("mine") is None
    assert (found := bench.cluster.parcels[0].sweep_request()) is not None
    assert found.sets == sets


def test_a_sweep_that_cannot_be_is_refused_here(bench: Bench) -> None:
    with pytest.raises(SpecError, match="epoch"):
        bench.submit("mine", **{"train.epochs": 0})
    assert not bench.cluster.parcels


def test_the_driver_plans_with_the_photographs_of_the_cluster(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bench.submit("mine", **{"data.images": "photographs"})
    monkeypatch.setenv(PARCEL, bench.cluster.parcels[0].packed())
    with pytest.raises(DataError, match="data-root"):
        submit.drive(bench.settings, Listener(), open_pool=lambda *_: ScriptedPool())
    there = Settings.model_validate({"home": bench.settings.home, "data_root": tmp_path})
    with pytest.raises(DataError, match=str(tmp_path)):
        submit.drive(there, Listener(), open_pool=lambda *_: ScriptedPool())


def test_photographs_that_the_cluster_lacks_too_are_never_replaced_by_generated_animals(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = replace(request("mine"), data_root="/of/no/machine")
    done = submit.submit_sweep(bench.settings, asked, clock=Clock(lambda: bench.now, bench.sleep))
    assert not done.planned_here
    monkeypatch.setenv(PARCEL, bench.cluster.parcels[0].packed())
    with pytest.raises(DataError, match="/of/no/machine"):
        submit.drive(bench.settings, Listener(), open_pool=lambda *_: ScriptedPool())


def test_the_driver_runs_the_plan_of_the_store_and_no_other_one(
    bench: Bench, new_home: Callable[[], Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.submit("mine")
    monkeypatch.setenv(PARCEL, bench.cluster.parcels[0].packed())
    with pytest.raises(StoreError, match="is not the one that sweep 'mine' was stored in"):
        submit.drive(new_home(), Listener(), open_pool=lambda *_: ScriptedPool())
    outcome = submit.drive(bench.settings, Listener(), open_pool=lambda *_: ScriptedPool())
    assert outcome.is_complete


def test_another_orch_in_the_cluster_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PARCEL, Parcel(sweep="mine", code="another").packed())
    with pytest.raises(ResourceError, match="Install the same orch on the cluster"):
        submit.supervise(print)


def test_the_commands_of_the_cluster_are_not_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PARCEL, raising=False)
    with pytest.raises(SpecError, match="not by hand"):
        submit.supervise(print)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"tracking_uri": "http://mlflow:5000"}, "No cluster is named"),
        ({"ray_address": "head:6379"}, "needs a tracking server"),
        ({"ray_address": "head:6379", "tracking_uri": "sqlite:///somewhere.db"}, "needs a tracking server"),
    ],
)
def test_what_a_detached_sweep_needs(fields: dict[str, str], told: str) -> None:
    with pytest.raises(SpecError, match=told):
        submit.submit_sweep(Settings.model_validate(fields), request("mine"))


@pytest.mark.parametrize(
    "run",
    [
        lambda settings: sweeps.run_sweep(settings, request("mine"), Listener()),
        lambda settings: sweeps.resume_sweep(settings, "mine", Listener()),
    ],
)
def test_a_machine_outside_the_cluster_is_told_to_detach(run: Callable[[Settings], Any], tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="Add `--detach`"):
        run(Settings.model_validate({"home": tmp_path, "ray_address": "http://head:8265"}))
