"""Workers that run a pack of jobs in one process: who joins which, and what becomes of the others if it ends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError
from ray.exceptions import ActorDiedError, RayTaskError

from orchestrator.execution.ray_pool import RayPool
from schemas.job import JobSpec
from schemas.lifecycle import StopReason
from schemas.order import WorkerFacts, WorkOrder
from schemas.packs import pack_shape, packing_of
from schemas.sweep import Resources
from tests.orchestrator.execution.test_pool_and_faults import (
    NEEDS,
    FakeRay,
    ended_of,
    fake,
    turn_until,
)
from tests.support.doubles import result_of
from tests.support.toy import toy_spec

__all__ = ["fake"]  # a fixture

HEAD = {"train__freeze_below": "top_conv"}
FIRST, SECOND, THIRD = (toy_spec(**HEAD, seed=seed) for seed in range(3))
OTHER = toy_spec(**HEAD, model__width=0.1)
WHOLE = toy_spec()


def order(spec: JobSpec, micro_batches: int = 1) -> WorkOrder:
    return WorkOrder(
        spec=spec, run_id="r", attempt=1, tracking_uri="", cache_dir="", checkpoint_dir="", micro_batches=micro_batches
    )


@pytest.fixture
def pool(fake: FakeRay) -> Iterator[RayPool]:
    """Two actors of three places each; the places of the first are 0, 2 and 3."""
    fake.hello = {node: WorkerFacts(node=node, host=node, places=3).model_dump_json() for node in fake.live}
    pool = RayPool(lambda: fake, fake, 4, (NEEDS,), most_places=3)
    turn_until(pool, lambda: pool.size == 6, 2)
    yield pool
    pool.close()


def shapes(pool: RayPool) -> dict[int, str]:
    return {idle.worker: idle.shape for idle in pool.idle()}


def test_a_pack_takes_jobs_of_its_shape_until_it_is_full(pool: RayPool, fake: FakeRay) -> None:
    assert {options["max_concurrency"] for options in fake.options_of} == {5}
    assert shapes(pool) == {0: "", 1: ""}
    pool.start(0, order(FIRST))
    assert list(shapes(pool).items()) == [(1, ""), (2, pack_shape(FIRST))]  # the empty one first
    pool.start(2, order(SECOND))
    pool.start(3, order(THIRD))
    assert shapes(pool) == {1: ""}


@pytest.mark.parametrize(
    "alone", [order(WHOLE), order(FIRST, micro_batches=2), order(FIRST).model_copy(update={"alone": True})]
)
def test_a_job_that_trains_alone_has_its_process_to_itself(pool: RayPool, alone: WorkOrder) -> None:
    pool.start(0, alone)
    assert shapes(pool) == {1: ""}


def test_a_job_that_ends_gives_its_place_to_another_of_the_pack(pool: RayPool, fake: FakeRay) -> None:
    pool.start(0, order(FIRST))
    pool.start(2, order(SECOND))
    fake.runs[0].answer = result_of(order(FIRST)).model_dump_json()
    (ended,) = ended_of(pool)
    assert (ended.worker, ended.is_told) == (0, True)
    assert shapes(pool) == {1: "", 0: pack_shape(SECOND)}


def test_a_process_that_dies_loses_all_its_jobs_once_and_no_other(pool: RayPool, fake: FakeRay) -> None:
    for place, spec in ((0, FIRST), (2, SECOND), (1, OTHER)):
        pool.start(place, order(spec))
    for run in fake.runs[:2]:
        run.answer = ActorDiedError()
    ended = ended_of(pool, 2)
    assert sorted((one.result.job_key, one.result.stop_reason) for one in ended) == sorted(
        (spec.key, StopReason.WORKER_LOST) for spec in (FIRST, SECOND)
    )
    assert pool.size == 3
    assert pool.wait(0.01) == []


def test_the_others_of_a_pack_are_lost_with_a_job_that_does_not_end(
    pool: RayPool, fake: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.execution.worker_stops.HEAR_SECONDS", 0.0)
    fake.hangs.add("get")
    pool.start(0, order(FIRST))
    pool.start(2, order(SECOND))
    pool.interrupt(0)
    reasons = {one.result.job_key: one.result.stop_reason for one in ended_of(pool, 2)}
    assert reasons == {FIRST.key: StopReason.INTERRUPTED, SECOND.key: StopReason.WORKER_LOST}
    turn_until(pool, lambda: bool(fake.killed))
    assert fake.killed == ["w1"]


def test_a_pack_that_does_not_hear_a_stop_is_interrupted_as_a_whole(
    pool: RayPool, fake: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.execution.worker_stops.HEAR_SECONDS", 0.0)
    fake.hangs.add("get")
    pool.start(0, order(FIRST))
    pool.start(2, order(SECOND))
    pool.stop()
    assert {one.result.stop_reason for one in ended_of(pool, 2)} == {StopReason.INTERRUPTED}
    assert pool.size == 0


@pytest.mark.parametrize("ending", [{"stop_reason": StopReason.PREEMPTED}, {"device_failed": True}])
def test_a_process_that_every_job_would_end_in_takes_no_more_and_ends_after_the_last(
    pool: RayPool, fake: FakeRay, ending: dict[str, Any]
) -> None:
    pool.start(0, order(FIRST))
    pool.start(2, order(SECOND))
    for number, spec in enumerate((FIRST, SECOND)):
        result = result_of(order(spec)).model_copy(update=ending)
        fake.runs[number].answer = result.model_dump_json()
        (ended,) = ended_of(pool)
        assert ended.result == result
        assert shapes(pool) == {1: ""}
        assert pool.size == 6 - 3 * number


def test_a_worker_is_not_spare_while_it_has_a_job(pool: RayPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.execution.ray_pool.GRACE_SECONDS", 0.0)
    pool.start(1, order(FIRST))
    turn_until(pool, lambda: pool.size == 3)
    assert list(shapes(pool).values()) == [pack_shape(FIRST)]


def test_a_job_goes_beside_others_only_once_no_worker_of_its_own_is_about_to_answer(
    fake: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.hello = {node: WorkerFacts(node=node, host=node, places=2).model_dump_json() for node in fake.live}
    actor_of, late = fake._actor, []

    def actor(selector: str) -> Any:
        found = actor_of(selector)
        if fake.number == 2:
            late.append(found.hello.remote())
            late.append(late[0].answer)
            late[0].answer = None
        return found

    monkeypatch.setattr(fake, "_actor", actor)
    pool = RayPool(lambda: fake, fake, 4, (NEEDS,), most_places=2)
    turn_until(pool, lambda: pool.size == 2, 2)
    pool.start(0, order(FIRST))
    turn_until(pool, lambda: shapes(pool) == {}, 1, shape=pack_shape(FIRST))
    late[0].answer = late[1]
    turn_until(pool, lambda: pool.size == 4, 1, shape=pack_shape(FIRST))
    assert list(shapes(pool).items()) == [(1, ""), (2, pack_shape(FIRST))]
    pool.close()


def test_a_process_that_takes_no_more_jobs_ends_with_its_last_one_even_if_that_raised(
    pool: RayPool, fake: FakeRay
) -> None:
    pool.start(0, order(FIRST))
    pool.start(2, order(SECOND))
    fake.runs[0].answer = result_of(order(FIRST), StopReason.PREEMPTED).model_dump_json()
    ended_of(pool)
    fake.runs[1].answer = RayTaskError("run", "a traceback", OSError())
    (ended,) = ended_of(pool)
    assert ended.result.stop_reason is StopReason.CODE_RAISED
    turn_until(pool, lambda: fake.killed == ["w1"])
    assert pool.size == 3


def test_pools_pack_until_their_workers_say_that_they_do_not(fake: FakeRay) -> None:
    pool = RayPool(lambda: fake, fake, 4, (NEEDS._replace(gpus=None),), most_places=8)
    assert pool.packs
    turn_until(pool, lambda: pool.size == 1, 1)
    assert not pool.packs
    pool.close()


def test_a_sweep_says_what_a_worker_has_to_know_of_its_packs() -> None:
    assert packing_of("off", [FIRST]) is None
    assert packing_of("auto", [WHOLE]) is None
    packing = packing_of("auto", [WHOLE, FIRST])
    assert packing is not None
    assert (packing.example, packing.most) == (FIRST, 8)
    asked = packing_of(2, [FIRST])
    assert asked is not None
    assert asked.most == 2


@pytest.mark.parametrize("value", [1, 33, True, "on", 2.5, None])
def test_a_setting_that_is_no_pack_is_refused_with_what_it_may_be(value: object) -> None:
    with pytest.raises(ValidationError, match=r"it must be 'auto', 'off' or a number from 2 to 32"):
        Resources.model_validate({"pack": value})


def test_a_pack_is_off_or_as_large_as_it_says() -> None:
    assert Resources().pack == "auto"
    for value in ("auto", "off", 2, 32):
        assert Resources.model_validate({"pack": value}).pack == value
