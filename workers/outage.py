"""Decides which errors mean that the tracking store is away for a while or a disk is full, and how long MLflow itself
goes on trying."""

from __future__ import annotations

import errno
import os

UNREACHABLE = frozenset({"TEMPORARILY_UNAVAILABLE", "INTERNAL_ERROR", "REQUEST_LIMIT_EXCEEDED", "DEADLINE_EXCEEDED"})
"""MLflow's codes for a store that may answer later; the others are mistakes of ours."""

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})

_SHORT_WAITS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}


def is_outage(error: Exception) -> bool:
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException
    from sqlalchemy.exc import OperationalError

    if isinstance(error, MlflowException):
        return str(error.error_code) in UNREACHABLE
    return isinstance(error, (RequestException, OperationalError, OSError))


def is_full_disk(error: BaseException | None) -> bool:
    """Whether a disk without room, or a used-up quota, is what an error comes from."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            return True
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return False


def wait_briefly() -> None:
    """In this process and those it starts: MLflow by itself is silent for minutes when its server is gone."""
    for name, value in _SHORT_WAITS.items():
        os.environ.setdefault(name, value)
