"""Checks everything that a sweep needs, without changing anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestrator.checkup.cluster import check_cluster
from orchestrator.checkup.machine import check_machine
from orchestrator.checkup.result import Checked, Level, bounded
from orchestrator.checkup.stores import check_stores
from orchestrator.settings import Settings
from schemas.errors import DataError, OrchError, ResourceError, SpecError, StoreError

_KINDS: tuple[type[OrchError], ...] = (SpecError, DataError, StoreError, ResourceError)


def examine(settings: Settings, *, with_ray: bool = False) -> Iterator[Checked]:
    """Carry out the checks one after the other, and yield each result as soon as it is known.

    Args:
        settings: what to check.
        with_ray: start a private Ray too, where no cluster is named.
    """
    yield from bounded("this machine", lambda: check_machine(settings), "A disk may hang: see `mount` and `dmesg`.")
    yield from check_stores(settings)
    if with_ray or settings.ray_address != "local":
        yield from check_cluster(settings)


def raise_if_unwell(found: Sequence[Checked]) -> None:
    """Raise the error that a checkup with bad results ends with; of several kinds, the one with the highest exit code.

    Raises:
        OrchError: something is bad; a subclass for the worst kind.
    """
    wrong = [one for one in found if one.level is Level.BAD]
    if not wrong:
        return
    worst = max(one.exit_code for one in wrong)
    kind = next(kind for kind in _KINDS if kind.exit_code == worst)
    raise kind(f"{len(wrong)} of {len(found)} checks failed. Repair what the lines above name, then check again.")
