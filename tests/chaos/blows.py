"""Decides, from a seed alone, how a round of chaos goes: on which store and disk, and which blows fall when."""

from __future__ import annotations

import random
from collections.abc import Mapping
from enum import StrEnum
from typing import Literal, NamedTuple

JOBS = 40
"""Of the sweep under fire, its pre-training not counted; a multiple of 8."""
EPOCHS = 3
"""Of each of them."""


class Kind(StrEnum):
    KILL_DRIVER = "kill driver"
    KILL_WORKER = "kill worker"
    KILL_RAYLET = "kill raylet"
    FREEZE_WORKER = "freeze worker"
    WAKE_REPLACED = "wake replaced"
    """A worker is stopped, its driver and Ray are killed and replaced, and only then it is woken."""
    SPOIL_CHECKPOINT = "spoil checkpoint"
    CUT_STORE = "cut store"
    CUT_OBJECTS = "cut object store"
    """Where there is one: the tracking server still answers."""
    FILL_DISK = "fill disk"


Spoiling = Literal["torn", "cut short", "bit flipped"]
Sign = Literal["seconds", "epochs", "finished"]

KINDS = tuple(Kind)
StoreKind = Literal["file", "server", "objects"]
"""A file below ORCH_HOME; behind a tracking server; behind one that keeps the runs' files in an object store."""
STORE_OF: Mapping[int, StoreKind] = {2: "server", 6: "objects"}
"""By the seed's rest by eight; a file otherwise."""


class Moment(NamedTuple):
    """So many seconds after the command was first typed, or epochs logged, or jobs finished; and `delay` s later."""

    sign: Sign
    count: int
    delay: float


class Blow(NamedTuple):
    kind: Kind
    when: Moment
    lasts: float
    """Seconds, at most: of a worker's sleep, an outage, a full disk."""
    pick: float
    """In [0, 1): which of the possible victims."""
    spoiling: Spoiling


class Round(NamedTuple):
    seed: int
    jobs: int
    store: StoreKind
    blank: bool
    """ORCH_HOME is empty at first, so that making the store lies under fire too."""
    resumes: bool
    """`orch resume` is typed after a fall, once the store knows the sweep; else `orch sweep` again."""
    patience_minutes: float
    """How long the store's absence is borne; some of the outages last longer."""
    blows: tuple[Blow, ...]

    @property
    def small_disk(self) -> bool:
        return any(blow.kind is Kind.FILL_DISK for blow in self.blows)


def plan_round(seed: int, *, jobs: int = JOBS, blows: int | None = None) -> Round:
    """The same for the same seed, on every machine. The seeds from 1 to 25 have every kind of blow.

    Args:
        blows: how many; None leaves that to the seed too.
    """
    draw = random.Random(seed)
    store = STORE_OF.get(seed % 8, "file")
    kinds_there = [kind for kind in KINDS if store == "objects" or kind is not Kind.CUT_OBJECTS]
    count = blows if blows is not None else draw.randint(2, 4)
    # Not `seed % 8`: a kind must meet both stores.
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
    """How far the sweep is then, roughly, in jobs."""
    return {"seconds": 0.0, "epochs": moment.count / EPOCHS, "finished": float(moment.count)}[
        moment.sign
    ] + moment.delay


def _draw_blow(draw: random.Random, kind: Kind, when: Moment) -> Blow:
    return Blow(kind, when, draw.uniform(2.0, 14.0), draw.random(), draw.choice(("torn", "cut short", "bit flipped")))
