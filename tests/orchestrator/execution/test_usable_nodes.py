"""Which nodes may get workers, after workers did not start or did not answer there."""

from __future__ import annotations

import pytest

from orchestrator.execution.placement import Node, Room
from orchestrator.execution.usable_nodes import AVOID_SECONDS, MOST_STRIKES, UsableNodes
from schemas.errors import ResourceError


def node(name: str, cpus: float = 4.0) -> Node:
    room = Room(cpus, 0.0, 8.0)
    return Node(name, f"host-{name}", room, room)


NODES = (node("a"), node("b"), node("head", cpus=0))
WHY, LOG = "It did not answer.", "Its log ends with: no memory"


def struck(usable: UsableNodes, name: str, times: int) -> UsableNodes:
    for _ in range(times):
        usable.strike(name, WHY, lambda: LOG)
    return usable


def test_nodes_without_cores_for_workers_are_none() -> None:
    assert UsableNodes(is_private=False).among(NODES) == {"a": "host-a", "b": "host-b"}


def test_a_node_is_ruled_out_by_workers_that_fail_to_start_in_a_row() -> None:
    usable = struck(UsableNodes(is_private=False), "a", MOST_STRIKES - 1)
    usable.note_start("a")
    struck(usable, "a", MOST_STRIKES - 1)
    assert set(usable.among(NODES)) == {"a", "b"}
    struck(usable, "a", 1)
    assert set(usable.among(NODES)) == {"b"}
    assert usable.avoided(0.0) == {"a"}


@pytest.mark.parametrize(("has_begun", "strikes"), [(False, 1), (True, MOST_STRIKES)])
def test_a_private_ray_is_given_up_at_once_only_if_no_worker_ever_started(has_begun: bool, strikes: int) -> None:
    usable = UsableNodes(is_private=True)
    if has_begun:
        usable.note_start("a")
    struck(usable, "a", strikes - 1)
    usable.check(NODES[:1], workers=0)
    struck(usable, "a", 1)
    with pytest.raises(ResourceError, match=r"^No worker can start: It did not answer\. Its log ends with: no memory$"):
        usable.check(NODES[:1], workers=0)


def test_a_silent_node_is_avoided_for_a_while_and_stays_usable() -> None:
    usable = UsableNodes(is_private=False)
    usable.note_silence("a", 100.0)
    assert usable.avoided(100.0 + AVOID_SECONDS - 0.1) == {"a"}
    assert usable.avoided(100.0 + AVOID_SECONDS) == frozenset()
    assert set(usable.among(NODES)) == {"a", "b"}


def test_it_goes_on_while_a_worker_or_a_node_is_left() -> None:
    usable = UsableNodes(is_private=False)
    usable.rule_out("a", "On host-a: no torch")
    usable.check(NODES, workers=0)
    usable.rule_out("b", "On host-b: no torch")
    usable.check(NODES, workers=1)
    with pytest.raises(ResourceError, match=r"On host-a: no torch On host-b: no torch$"):
        usable.check(NODES, workers=0)


def test_a_cluster_whose_nodes_are_all_away_is_waited_for() -> None:
    usable = UsableNodes(is_private=False)
    usable.rule_out("a", "On host-a: no torch")
    usable.check((), workers=0)


def test_workers_that_fail_on_unknown_nodes_end_it_though_nodes_look_usable() -> None:
    usable = struck(UsableNodes(is_private=False), "", MOST_STRIKES)
    assert usable.avoided(0.0) == frozenset()
    with pytest.raises(ResourceError, match="It did not answer"):
        usable.check(NODES, workers=0)
