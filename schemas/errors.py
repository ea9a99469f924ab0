"""Every expected failure, one tree; the CLI turns each into a message and its exit code."""

from __future__ import annotations

from typing import ClassVar


class OrchError(Exception):
    """Something a person can repair. The message says what, where and what to do next."""

    exit_code: ClassVar[int] = 1


class SweepIncomplete(OrchError):
    """The sweep ended, but some jobs did not succeed."""

    exit_code = 1


class SpecError(OrchError):
    """A spec, grid, profile, sweep file or name that cannot be used as written."""

    exit_code = 2


class DataError(OrchError):
    """Images or annotations that are missing, empty, broken or too few."""

    exit_code = 3


class StoreError(OrchError):
    """The tracking store, or a file under ORCH_HOME, that cannot be opened, read or written."""

    exit_code = 4


class StoreUnreachable(StoreError):
    """The tracking store does not answer now, but may later: what was asked of it is asked again."""


class DiskFull(StoreError):
    """A disk that jobs write to has no room left, so the sweep was stopped in order."""


class CheckpointError(StoreError):
    """A checkpoint that is torn, of another job, or does not fit the network."""


class WeightsError(OrchError):
    """A weights file that does not fit the backbone it is loaded into."""

    exit_code = 3


class ResourceError(OrchError):
    """Fewer cores, GPUs or memory than the jobs need."""

    exit_code = 5


class SweepBusy(OrchError):
    """Another driver is running this sweep."""

    exit_code = 6


class IllegalTransition(OrchError):
    """A job was asked to make a move that the lifecycle table does not have: a defect of orch."""

    exit_code = 70


class Diverged(OrchError):
    """Training met a loss or a weight that is not finite."""


class Superseded(OrchError):
    """An attempt found that another one has its job now."""


class Interrupted(OrchError):
    """The user asked the sweep to stop; what ran is saved and `orch resume` goes on."""

    exit_code = 130
