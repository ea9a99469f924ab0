"""Decides from a seed which faults hit a sweep on a cluster, and when: `python -m tests.chaos --stage cluster`."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

from tests.chaos.stage import Stuck
from tests.cluster.scenarios import DRAIN_SECONDS, LONGEST_SECONDS, NAME, Act, Scenario, drain
from tests.cluster.services import Service
from tests.cluster.stage import EPOCHS, JOBS, Command, Ray

MOST_COMMANDS = 8
OWN_ENDS = frozenset({0, 1, 4, 5})
"""Exit codes that a command may return under faults: done, not all done, store unreachable, no Ray."""


class Kind(StrEnum):
    """Kind of fault."""

    KILL_WORKER = "kill worker"
    KILL_NODE = "kill node"
    CUT_NODE = "cut node"
    FREEZE_NODE = "freeze node"
    DRAIN_NODE = "drain node"
    JOIN_NODE = "join node"
    KILL_DRIVER = "kill driver"
    KILL_HEAD = "kill head"
    KILL_TRACKING = "kill tracking"
    STOP_DATABASE = "stop database"
    KILL_OBJECTS = "kill objects"


KINDS = tuple(Kind)


class Blow(NamedTuple):
    """A fault to inject."""

    kind: Kind
    epochs: int
    """Number of epochs of all jobs together after which it comes."""
    lasts: float
    """Seconds of an outage."""
    pick: float
    """Chooses among the nodes, in [0, 1)."""


def plan_round(seed: int) -> tuple[Blow, ...]:
    """Plan the faults of a round. Equal seeds give equal rounds; eleven seeds in a row have every kind of fault."""
    draw = random.Random(seed)
    kinds = [KINDS[seed % len(KINDS)], *draw.choices(KINDS, k=draw.randint(1, 2))]
    draw.shuffle(kinds)
    moments = sorted(draw.randint(1, int(0.8 * JOBS * EPOCHS)) for _ in kinds)
    return tuple(
        Blow(kind, moment, draw.uniform(5.0, 30.0), draw.random()) for kind, moment in zip(kinds, moments, strict=True)
    )


def round_of(seed: int) -> Scenario:
    """Return the round of a seed as a scenario."""
    blows = plan_round(seed)

    def play(act: Act) -> None:
        player = _Player(act)
        for blow in blows:
            if player.reach(blow.epochs):
                player.strike(blow)
                act.notes.append(f"{blow.kind} after {blow.epochs} epochs")
        player.finish()

    play.__doc__ = f"{', '.join(blow.kind for blow in blows)}."
    return Scenario(f"seed {seed}", play, most_lost=JOBS * EPOCHS, more_attempts=4 * len(blows))


class _Player:
    """Types the command again whenever it ends, as a person would, until the sweep is done."""

    def __init__(self, act: Act) -> None:
        self.act, self.cluster = act, act.cluster
        self.command: Command = act.sweep()
        self._typed = 1

    def goes_on(self) -> bool:
        """Return False if the sweep is done.

        Raises:
            Stuck: a command hangs or ends with an exit code of its own, or typing it again does not help.
        """
        code = self.command.ended()
        if code is None:
            if time.monotonic() - self.command.began > LONGEST_SECONDS:
                raise Stuck(f"`orch {self.command.words[0]}` is still running after {LONGEST_SECONDS:.0f} s")
            return True
        if code == 0:
            return False
        if code > 0 and code not in OWN_ENDS:
            raise Stuck(f"`orch {self.command.words[0]}` returned exit code {code}: {self.command.text[-400:]}")
        if self._typed == MOST_COMMANDS:
            raise Stuck(f"not finished after {MOST_COMMANDS} commands; the last one said {self.command.text[-400:]}")
        time.sleep(4.0)  # eight commands outlast every outage
        self._typed += 1
        knows = bool(self.cluster.store.sweep_statuses())
        self.command = self.cluster.type(*(("resume", NAME) if knows else ("sweep", self.act.file)))
        return True

    def reach(self, epochs: int) -> bool:
        """Wait until so many epochs were trained. Returns False if the sweep ended before."""
        while self.act.epochs() < epochs:
            if not self.goes_on():
                return False
            time.sleep(0.2)
        return self.goes_on()

    def finish(self) -> None:
        """Wait until the sweep is done."""
        while self.goes_on():
            time.sleep(0.2)

    def strike(self, blow: Blow) -> None:
        """Inject a fault. A node that goes for good is replaced by a new one."""
        nodes = [node for node in self.cluster.nodes.values() if node.host.alive]
        node = nodes[int(blow.pick * len(nodes))]
        services: dict[Kind, tuple[Service, bool]] = {
            Kind.KILL_HEAD: (self.cluster.head, False),
            Kind.KILL_TRACKING: (self.cluster.mlflow, False),
            Kind.STOP_DATABASE: (self.cluster.postgres, True),
            Kind.KILL_OBJECTS: (self.cluster.objects, False),
        }
        if blow.kind in services:
            service, stopped = services[blow.kind]
            service.stop() if stopped else service.kill()
            self._lasts(blow.lasts)
            service.start()
            if service is not self.cluster.head:
                service.wait()
            return
        strike: dict[Kind, Callable[[Ray, float], None]] = {
            Kind.KILL_WORKER: self._kill_worker,
            Kind.KILL_NODE: self._kill_node,
            Kind.CUT_NODE: self._cut_node,
            Kind.FREEZE_NODE: self._freeze_node,
            Kind.DRAIN_NODE: self._drain_node,
            Kind.JOIN_NODE: self._join_node,
            Kind.KILL_DRIVER: self._kill_driver,
        }
        strike[blow.kind](node, blow.lasts)

    def _kill_worker(self, node: Ray, lasts: float) -> None:
        for worker in self.cluster.workers(node.host):
            worker.kill()

    def _kill_node(self, node: Ray, lasts: float) -> None:
        node.host.kill()
        self._lasts(lasts)
        self.cluster.add_node()

    def _cut_node(self, node: Ray, lasts: float) -> None:
        node.host.cut()
        self._lasts(lasts)
        node.host.rejoin()

    def _freeze_node(self, node: Ray, lasts: float) -> None:
        node.host.freeze()
        self._lasts(lasts)
        node.host.thaw()

    def _drain_node(self, node: Ray, lasts: float) -> None:
        drain(self.cluster, node)
        self._lasts(DRAIN_SECONDS)
        self._kill_node(node, lasts)

    def _join_node(self, node: Ray, lasts: float) -> None:
        self.cluster.add_node()

    def _kill_driver(self, node: Ray, lasts: float) -> None:
        self.command.kill()

    def _lasts(self, seconds: float) -> None:
        """Wait while an outage lasts; commands that end are typed again under it."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and self.goes_on():
            time.sleep(0.2)
