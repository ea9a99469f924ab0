"""Every expected failure as one tree of exceptions; the CLI prints the message and exits with `exit_code`."""

from __future__ import annotations

from typing import ClassVar


class OrchError(Exception):
    """Base class of failures that a user can resolve. The message says what happened, where, and what to do next."""

    exit_code: ClassVar[int] = 1
    """Exit code of the command that fails with this error."""


class SweepIncomplete(OrchError):
    """The sweep ended, but some of its jobs did not succeed. Exit code 1."""

    exit_code = 1


class SpecError(OrchError):
    """An invalid spec, grid, profile, sweep file, option or name. Exit code 2."""

    exit_code = 2


class DataError(OrchError):
    """Images or annotations are missing, empty, corrupt or too few. Exit code 3."""

    exit_code = 3


class DataAbsent(DataError):
    """This machine lacks a data set that another machine may have. Exit code 3."""


class WeightsAbsent(DataAbsent):
    """This machine lacks a weights file that another machine may have. Exit code 3."""


class StoreError(OrchError):
    """The tracking store or a file under ORCH_HOME cannot be opened, read or written. Exit code 4."""

    exit_code = 4


class StoreUnreachable(StoreError):
    """The tracking store does not respond at the moment; the request is retried. Exit code 4."""


class AccessDenied(StoreError):
    """The tracking store or the object store does not accept the credentials of a process. Exit code 4."""


class DiskFull(StoreError):
    """A disk that jobs write to is full, so the sweep was stopped in order. Exit code 4."""


class ObjectMissing(StoreError):
    """The object store has no such object. Exit code 4."""


class ObjectDamaged(StoreError):
    """An object, or the file that was to become one, has not the content that its digest promises. Exit code 4."""


class ObjectConflict(StoreError):
    """Another process has changed an object that was to be replaced. Exit code 4."""


class CheckpointError(StoreError):
    """A checkpoint is missing or damaged, belongs to another job, or does not fit the network. Exit code 4."""


class WeightsError(OrchError):
    """A weights file does not fit the backbone that it is loaded into. Exit code 3."""

    exit_code = 3


class ResourceError(OrchError):
    """The machine or cluster has fewer cores, GPUs or memory than the jobs need. Exit code 5."""

    exit_code = 5


class SweepBusy(OrchError):
    """Another driver is running this sweep. Exit code 6."""

    exit_code = 6


class IllegalTransition(OrchError):
    """A job was asked to make a transition that the lifecycle table does not allow: a bug in orch. Exit code 70."""

    exit_code = 70


class Diverged(OrchError):
    """A loss or a weight became infinite or NaN during training. Raised within a job, which ends as `diverged`."""


class Superseded(OrchError):
    """Another attempt has taken over the job. Raised within the older attempt, which ends as `superseded`."""


class Interrupted(OrchError):
    """The user stopped the sweep. Running jobs were saved and `orch resume` continues. Exit code 130."""

    exit_code = 130
