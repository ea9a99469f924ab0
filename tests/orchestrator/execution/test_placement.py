"""Which workers are requested, which are spare, and which job goes to which."""

from __future__ import annotations

import pytest

from orchestrator.execution.placement import (
    Asked,
    Idle,
    Node,
    Room,
    Wish,
    assign,
    decide,
    has_place,
    is_refused,
    kinds,
    misfits,
    why_waiting,
)
from schemas.sweep import BackboneResources, Needs, Resources

SMALL, LARGE, THIRD = Needs(1, 0.0, 1.0), Needs(2, 0.0, 4.0), Needs(1, 1 / 3, 1.0)


def node(name: str, cpus: float, gpus: float = 0.0, memory: float = 8.0, *, free: float | None = None,
         drains: bool = False) -> Node:  # fmt: skip
    total = Room(cpus, gpus, memory)
    return Node(name, name, total, total if free is None else total._replace(cpus=free), drains)


def wish(needs: Needs = SMALL, *avoid: str) -> Wish:
    return Wish(needs, frozenset(avoid))


@pytest.mark.parametrize(
    ("wishes", "nodes", "left", "ahead", "requested"),
    [
        # as many as fit now, and one that waits for room
        ([wish()] * 5, [node("a", 1), node("b", 1)], 9, 1, 3),
        # nobody waits for room on this machine alone
        ([wish()] * 5, [node("a", 1), node("b", 1)], 9, 0, 2),
        ([wish()] * 5, [node("a", 4)], 2, 1, 2),  # the largest number of workers
        ([wish()], [], 9, 1, 1),  # the demand that an autoscaler sees
        ([wish()] * 3, [node("head", 0)], 9, 1, 1),
        ([wish(LARGE)] * 3, [node("a", 1)] * 3, 9, 0, 0),  # three single cores are not two
        ([wish()] * 3, [node("a", 4, free=1)], 9, 0, 1),  # others use the rest
        ([wish()] * 3, [node("a", 4, drains=True)], 9, 0, 0),
        ([wish(THIRD)] * 9, [node("a", 9, gpus=1.0), node("b", 9, gpus=1.0)], 9, 0, 6),  # fractions, per machine
        ([wish(SMALL, "a")] * 2, [node("a", 4), node("b", 1)], 9, 0, 1),
        ([wish(LARGE), wish()], [node("a", 1)], 9, 0, 1),  # what does not fit does not hold up what does
        ([wish(Needs(1, 0.0, 6.0))] * 2, [node("a", 4)], 9, 0, 1),  # memory
    ],
)
def test_workers_are_requested_while_they_fit(
    wishes: list[Wish], nodes: list[Node], left: int, ahead: int, requested: int
) -> None:
    names = [each._replace(id=f"{each.id}{place}") if len(nodes) > 2 else each for place, each in enumerate(nodes)]
    assert len(decide(wishes, [], [], names, left, ahead).request) == requested


def test_what_was_requested_is_not_requested_again_and_takes_room() -> None:
    asked = [Asked(7, wish(), has_place=False)]
    found = decide([wish()] * 3, [], asked, [node("a", 2)], left=9, ahead=0)
    assert (len(found.request), found.spare) == (1, frozenset())
    placed = [Asked(7, wish(), has_place=True)]
    found = decide([wish()] * 2, [], placed, [node("a", 2, free=1)], left=9, ahead=0)
    assert (len(found.request), len(found.unmet)) == (1, 0)
    full = decide([wish()] * 2, [], asked, [node("a", 1, free=0)], left=9, ahead=1)
    assert (len(full.request), len(full.unmet)) == (0, 2)


def test_workers_that_no_job_could_use_are_spare() -> None:
    idle = [Idle(1, SMALL, "a"), Idle(2, LARGE, "a"), Idle(3, SMALL, "b")]
    asked = [Asked(4, wish(), has_place=False), Asked(5, wish(LARGE), has_place=True)]
    found = decide([wish(SMALL, "b"), wish(LARGE)], idle, asked, [], left=0, ahead=0)
    assert found.spare == {3, 4, 5}
    assert found.request == found.unmet == ()


def test_a_requested_worker_that_could_land_where_the_job_cannot_run_is_not_its_worker() -> None:
    found = decide([wish(SMALL, "a")], [], [Asked(1, wish(), has_place=False)], [node("b", 2)], left=9, ahead=0)
    assert found.request == (wish(SMALL, "a"),)


def test_jobs_go_in_order_to_the_first_worker_that_serves_them() -> None:
    idle = [Idle(1, SMALL, "a"), Idle(2, SMALL, "b"), Idle(3, LARGE, "b")]
    jobs = {"no-room": wish(THIRD), "not-a": wish(SMALL, "a"), "any": wish(), "late": wish(), "large": wish(LARGE)}
    assert [(key, worker.worker) for key, worker in assign(jobs, idle)] == [("not-a", 2), ("any", 1), ("large", 3)]


def test_a_job_that_trains_alone_keeps_later_jobs_from_one_pack_so_that_it_runs_dry() -> None:
    idle = [Idle(1, SMALL, "a", "one"), Idle(2, SMALL, "b", "one")]
    jobs = {"alone": wish(), "rider": Wish(SMALL, shape="one"), "late": Wish(SMALL, shape="one")}
    assert [(key, worker.worker) for key, worker in assign(jobs, idle)] == [("rider", 2)]


def test_fit_is_decided_per_machine() -> None:
    three = [node(name, 1) for name in "abc"]
    assert misfits([SMALL, LARGE], three) == [LARGE]
    assert misfits([LARGE], [*three, node("d", 2, free=0)]) == []
    assert kinds([*three, node("d", 2, gpus=1)]) == (
        "3 machines of 1 CPU and 8 GB; 1 machine of 2 CPUs, 1 GPU and 8 GB"
    )


@pytest.mark.parametrize(
    ("unmet", "nodes", "says"),
    [
        ([wish()] * 2, [node("head", 0)], "2 jobs wait: the cluster has no machine for workers"),
        ([wish(LARGE)], [node("a", 1)], "1 job waits: no machine is large enough for a worker of 2 CPUs and 4 GB"),
        ([wish()], [node("a", 1, free=0)], "the machines that would do are in use. The cluster has 1 machine of 1 CPU"),
    ],
)
def test_why_jobs_wait_is_said(unmet: list[Wish], nodes: list[Node], says: str) -> None:
    assert says in why_waiting(unmet, nodes)


def test_what_the_autoscaler_cannot_add_is_named_where_no_machine_is() -> None:
    refused = [Room(2, 0, 4)]
    assert "can add none for a worker of 2 CPUs and 4 GB" in why_waiting([wish(), wish(LARGE)], [], refused)
    assert "autoscaler" not in why_waiting([wish(), wish(THIRD)], [], refused)
    assert is_refused(THIRD, [Room(1, 0.333333333, 1)])
    assert not is_refused(THIRD, [Room(1, 0, 1), Room(2, 1 / 3, 1)])


def test_a_backbone_may_need_other_resources() -> None:
    resources = Resources(
        cpus_per_worker=2, by_backbone={"vgg16": BackboneResources(gpus_per_worker=1.0, memory_gb_per_worker=8.0)}
    )
    assert resources.needs("alexnet") == Needs(2, None, 1.0)
    assert resources.needs("vgg16") == Needs(2, 1.0, 8.0)


def test_a_worker_that_avoids_a_machine_that_would_do_again_gives_way() -> None:
    waiting = [Asked(1, wish(SMALL, "a"), has_place=False)]
    found = decide([wish()], [], waiting, [node("a", 1)], left=9, ahead=0)
    assert (found.request, found.spare) == ((wish(),), {1})
    placed = [Asked(1, wish(SMALL, "a"), has_place=True)]
    assert decide([wish()], [], placed, [node("a", 1), node("b", 1, free=0)], left=9, ahead=0).request == ()


def test_spare_workers_are_in_the_way_only_of_jobs_that_get_none() -> None:
    spare = [Idle(1, SMALL, "a")]
    assert decide([wish(LARGE)], spare, [], [node("a", 2, free=1)], left=9, ahead=0).is_short
    assert decide([wish(LARGE)], spare, [], [node("a", 4, free=3)], left=0, ahead=0).is_short
    assert not decide([wish(LARGE)], spare, [], [node("a", 4, free=3)], left=9, ahead=0).is_short
    assert not decide([], spare, [], [node("a", 2, free=1)], left=9, ahead=0).is_short


def test_the_job_of_a_worker_that_is_given_up_takes_its_place_under_the_limit() -> None:
    nodes = [node("a", 1, free=0), node("b", 1)]
    assert has_place(wish(SMALL, "a"), [], [], [], nodes, left=0)
    assert not has_place(wish(SMALL, "a", "b"), [], [], [], nodes, left=0)
    assert not has_place(wish(SMALL, "a"), [wish()], [], [], nodes, left=0)  # a job that waits comes first
