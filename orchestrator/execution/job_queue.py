"""The queue of a large sweep: what the driver asks of it at every end of a job is kept, and not searched for."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice

from orchestrator.execution import scheduler
from orchestrator.execution.scheduler import QueueEntry
from schemas.lifecycle import JobState

_S = JobState
_WAITING = frozenset({_S.QUEUED, _S.REQUEUED})
_ENDED = frozenset({_S.SUCCEEDED, _S.FAILED})
_USING = frozenset({_S.SUCCEEDED, _S.RUNNING})


class JobQueue(dict[str, QueueEntry]):
    """Every job of a sweep by key, in the order in which they should run. Entries are replaced, never added."""

    def __init__(self, entries: Iterable[QueueEntry]) -> None:
        """
        Args:
            entries: One for each job, upstream jobs first.
        """
        super().__init__({entry.key: entry for entry in entries})
        self._keys = list(self)
        self._places = {key: place for place, key in enumerate(self._keys)}
        self._counts = Counter(entry.state for entry in self.values())
        self._waiting = [place for place, entry in enumerate(self.values()) if entry.state in _WAITING]
        users = Counter(entry.features for entry in self.values())
        self._shared = {name for name, number in users.items() if name is not None and number > 1}
        self._computed, self._computing = self._users_in(_S.SUCCEEDED), self._users_in(_S.RUNNING)
        self._has_upstream = any(entry.upstream is not None for entry in self.values())
        self._delayed = {entry.key for entry in self.values() if entry.not_before}
        self._replaced = set(self)

    def _users_in(self, state: JobState) -> Counter[str | None]:
        """Number of jobs in a state by the features that they use."""
        return Counter(entry.features for entry in self.values() if entry.state is state)

    def __setitem__(self, key: str, entry: QueueEntry) -> None:
        before, place = self[key], self._places[key]
        super().__setitem__(key, entry)
        self._replaced.add(key)
        if entry.not_before:
            self._delayed.add(key)
        self._counts[before.state] -= 1
        self._counts[entry.state] += 1
        for one, change in ((before, -1), (entry, 1)):
            if one.features in self._shared and one.state in _USING:
                (self._computed if one.state is _S.SUCCEEDED else self._computing)[one.features] += change
        if before.state in _WAITING and entry.state not in _WAITING:
            del self._waiting[bisect_left(self._waiting, place)]
        elif before.state not in _WAITING and entry.state in _WAITING:
            insort(self._waiting, place)

    @property
    def ended(self) -> int:
        """Number of jobs that succeeded or failed."""
        return sum(self._counts[state] for state in _ENDED)

    @property
    def is_over(self) -> bool:
        """Whether no job is running and none is left that can run."""
        return not self._counts[_S.RUNNING] and len(self._waiting) == len(self.blocked())

    def blocked(self) -> list[str]:
        """See `scheduler.blocked`."""
        has_failed = self._counts[_S.FAILED] or self._counts[_S.CANCELLED]
        return scheduler.blocked(self) if has_failed and self._has_upstream else []

    def take_replaced(self) -> set[str]:
        """Return the keys of the entries that were replaced since the last call; at the first call, all keys."""
        found, self._replaced = self._replaced, set()
        return found

    def count_ready(self, now: float, most: int) -> int:
        """Return how many jobs can start at `now`, or `most` if there are more."""
        if self._has_upstream:
            return len(self.ready(now, most))
        self._delayed = {key for key in self._delayed if self[key].not_before > now}
        later = sum(self[key].state in _WAITING for key in self._delayed)
        return min(most, len(self._waiting) - later)

    def ready(self, now: float, most: int | None = None) -> list[str]:
        """Return the keys of the jobs that can start at `now`, in order: waiting, backoff over, upstream succeeded.

        The first job with some features computes them, and others that need them would only wait for it. These come
        last until it has ended.

        Args:
            now: Unix seconds.
            most: How many of the jobs are wanted; None means all.
        """
        return list(islice(self._ready(now), most))

    def _ready(self, now: float) -> Iterator[str]:
        """Yield the jobs that can start, and last those that would wait for features that another job computes."""
        begun, last = set[str | None](), list[str]()
        for place in self._waiting:
            entry = self[self._keys[place]]
            if not scheduler.can_start(self, entry, now):
                continue
            if entry.features in self._shared and not self._computed[entry.features]:
                if entry.features in begun or self._computing[entry.features]:
                    last.append(entry.key)
                    continue
                begun.add(entry.features)
            yield entry.key
        yield from last
