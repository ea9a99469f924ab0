"""Decides from a seed how a round of fault injection runs: on which store and disk, with which faults, and when."""

from __future__ import annotations

import random
from collections.abc import Mapping
from enum import StrEnum
from typing import Literal, NamedTuple

JOBS = 40
"""Default number of jobs of the sweep, without pre-training; a multiple of 8."""
EPOCHS = 3
"""Epochs of each job."""


class Kind(StrEnum):
    """Kind of fault."""

    KILL_DRIVER = "kill driver"
    KILL_WORKER = "kill worker"
    KILL_RAYLET = "kill raylet"
    FREEZE_WORKER = "freeze worker"
    WAKE_REPLACED = "wake replaced"
    """A worker is suspended, its driver and Ray are killed and replaced, and then the worker is resumed."""
    SPOIL_CHECKPOINT = "spoil checkpoint"
    CUT_STORE = "cut store"
    CUT_OBJECTS = "cut object store"
    """Only with an object store. The tracking server still answers."""
    FILL_DISK = "fill disk"


Spoiling = Literal["torn", "cut short", "bit flipped"]
Sign = Literal["seconds", "epochs", "finished"]

KINDS = tuple(Kind)
StoreKind = Literal["file", "server", "objects"]
"""A file below ORCH_HOME, a tracking server, or a tracking server with artifacts in an object store."""
STORE_OF: Mapping[int, StoreKind] = {2: "server", 6: "objects"}
"""By the seed modulo 8; otherwise a file."""


class Moment(NamedTuple):
    """When a fault is injected: at `count` seconds, logged epochs or finished jobs, plus `delay` seconds."""

    sign: Sign
    count: int
    delay: float


class Blow(NamedTuple):
    """A fault to inject."""

    kind: Kind
    when: Moment
    lasts: float
    """Longest duration of a suspended worker, an outage or a full disk, in seconds."""
    pick: float
    """Chooses among the possible targets, in [0, 1)."""
    spoiling: Spoiling


class Round(NamedTuple):
    """A sweep and the faults that are injected into it."""

    seed: int
    jobs: int
    store: StoreKind
    blank: bool
    """Whether ORCH_HOME is empty at first, so that faults also hit the creation of the store."""
    resumes: bool
    """Whether `orch resume` restarts the sweep once the store knows it; otherwise `orch sweep` does."""
    patience_minutes: float
    """How long an unreachable store is retried; some outages last longer."""
    blows: tuple[Blow, ...]

    @property
    def small_disk(self) -> bool:
        """Whether ORCH_HOME is on a small disk of its own, which a fault fills."""
        return any(blow.kind is Kind.FILL_DISK for blow in self.blows)


def plan_round(seed: int, *, jobs: int = JOBS, blows: int | None = None) -> Round:
    """Plan a round. Equal seeds give equal rounds on every machine; seeds 1 to 25 cover every kind of fault.

    Args:
        seed: decides everything that is not given.
        jobs: number of jobs of the sweep; a multiple of 8.
        blows: number of faults; None lets the seed decide (2 to 4).
    """
    draw = random.Random(seed)
    store = STORE_OF.get(seed % 8, "file")
    kinds_there = [kind for kind in KINDS if store == "objects" or kind is not Kind.CUT_OBJECTS]
    count = blows if blows is not None else draw.randint(2, 4)
    # Not `seed % 8`: every kind must occur with both stores.
    first = Kind.CUT_OBJECTS if store == "objects" else kinds_there[(seed + seed // 8) % len(kinds_there)]
    kinds = [first, *(draw.choice(kinds_there) for _ in range(count - 1))]
    draw.shuffle(kinds)
    moments = sorted((_draw_moment(draw, jobs) for _ in kinds), key=_progress)
    return Round(
        seed=seed,
        jobs=jobs,
        store=store,
        blank=seed % 5 == 1 and store == "file",
        resumes=draw.random() < 0.5,
        patience_minutes=draw.choice([0.1, 10.0]),
        blows=tuple(_draw_blow(draw, kind, when) for kind, when in zip(kinds, moments, strict=True)),
    )


def _draw_moment(draw: random.Random, jobs: int) -> Moment:
    sign = draw.choices(("seconds", "epochs", "finished"), weights=(1, 3, 3))[0]
    last = jobs - jobs // 8
    most = {"seconds": 20, "epochs": EPOCHS * last, "finished": last}[sign]
    return Moment(sign, draw.randint(0 if sign == "seconds" else 1, most), draw.choice([0.0, draw.uniform(0, 1.5)]))


def _progress(moment: Moment) -> float:
    """Approximate progress of the sweep at a moment, in jobs."""
    return {"seconds": 0.0, "epochs": moment.count / EPOCHS, "finished": float(moment.count)}[
        moment.sign
    ] + moment.delay


def _draw_blow(draw: random.Random, kind: Kind, when: Moment) -> Blow:
    return Blow(kind, when, draw.uniform(2.0, 14.0), draw.random(), draw.choice(("torn", "cut short", "bit flipped")))
