"""Asks every node of a Ray cluster about itself. Runs as a process of its own: Ray may hang, or end its process.

Standard input holds SurveyOrder as JSON; each line of standard output is one SurveyLine.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from orchestrator.execution.ray_session import RaySession
from orchestrator.execution.resources import usable_cores
from schemas.base import Frozen
from schemas.errors import OrchError
from workers.node_facts import NodeFacts, NodeQuestions, node_facts


class SurveyOrder(Frozen):
    """Which cluster to ask, and what."""

    address: str
    """As ORCH_RAY_ADDRESS; `local` starts a private Ray."""
    questions: NodeQuestions
    seconds: float
    """Longest time to wait for the answers of the nodes, which are asked at once."""


class Node(Frozen):
    """A node as Ray's head has it."""

    id: str
    host: str
    cpus: float
    gpus: float


class SurveyLine(Frozen):
    """One thing that was found out; all other fields are None."""

    error: str | None = None
    """Why the cluster cannot be used."""
    nodes: tuple[Node, ...] | None = None
    """All nodes that are alive; the first line, unless there is an error."""
    node: str | None = None
    """Id of the node that the following fields are about."""
    facts: NodeFacts | None = None
    problem: str | None = None
    """Why the node gave no facts."""


def main() -> None:
    """Carry out the order on standard input."""
    order = SurveyOrder.model_validate_json(sys.stdin.read())
    session = RaySession(order.address, cpus=usable_cores())
    try:
        session.start()
        _survey(order)
    except OrchError as error:
        _tell(SurveyLine(error=str(error)))
    except Exception as error:  # noqa: BLE001 - the boundary of this process
        _tell(SurveyLine(error=f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"))
    if order.address == "local":
        session.stop()
    os._exit(0)  # an orderly end of Ray's library may wait for a node that hangs


def _survey(order: SurveyOrder) -> None:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = tuple(
        Node(
            id=one["NodeID"], host=one["NodeManagerHostname"], cpus=one["Resources"].get("CPU", 0.0),
            gpus=one["Resources"].get("GPU", 0.0),
        )
        for one in ray.nodes()  # type: ignore[no-untyped-call]
        if one["Alive"]
    )  # fmt: skip
    _tell(SurveyLine(nodes=nodes))
    ask: Any = ray.remote(num_cpus=0, max_retries=0)(node_facts)
    waiting = {
        ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)).remote(
            order.questions.model_dump_json()
        ): node
        for node in nodes
    }
    until = order.seconds
    while waiting:
        done, _ = ray.wait(list(waiting), num_returns=1, timeout=until)
        if not done:
            break
        _tell(_answer(waiting.pop(done[0]), done[0]))
    for node in waiting.values():
        _tell(SurveyLine(node=node.id, problem=f"no answer within {order.seconds:.0f} s. Is that machine overloaded?"))


def _answer(node: Node, reference: Any) -> SurveyLine:
    import ray

    try:
        return SurveyLine(node=node.id, facts=NodeFacts.model_validate_json(ray.get(reference)))
    except Exception as error:  # noqa: BLE001 - of whichever kind, it is about that node
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        if any("No module named" in line for line in lines):
            return SurveyLine(node=node.id, problem="it has no orch, or another version. Install the same orch there.")
        return SurveyLine(node=node.id, problem=f"{type(error).__name__}: {lines[-1] if lines else ''}")


def _tell(line: SurveyLine) -> None:
    print(line.model_dump_json(exclude_none=True), flush=True)


if __name__ == "__main__":
    main()
