"""Makes MLflow's sessions with the embedded store cheaper: SQLite's options are set once for each connection.

MLflow sets the same three options at the begin of each of its sessions, of which one request has up to four. A worker
adds one of its own: its commits are not flushed to the disk, because an attempt that a power cut ends is repeated from
its checkpoint and logs what is missing. They are flushed with the job's outcome, and by every commit of the driver.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient

OPTIONS = ("foreign_keys = ON", "busy_timeout = 20000", "case_sensitive_like = true")
"""The options that MLflow sets, in its words."""
UNFLUSHED = "synchronous = NORMAL"
"""A power cut may lose the last commits, and nothing else, of a database in WAL mode."""
SET = "orch.options"
"""Marks a connection that has them."""


def set_options_once(client: MlflowClient, *, flush: bool = True) -> None:
    """Let MLflow's store of this process set SQLite's options for each connection instead of each session.

    Nothing is done if the client's store is another one, or if this version of MLflow makes its sessions otherwise. A
    repeated call changes nothing.

    Args:
        client: a client of the store.
        flush: whether commits are on the disk when they return. Without effect after an earlier call.
    """
    with suppress(ImportError, AttributeError, TypeError):  # names that MLflow may change in any version
        _set_options_once(client._tracking_client.store, flush)


def _set_options_once(store: Any, flush: bool) -> None:
    from mlflow.store.db.utils import _get_managed_session_maker
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from sqlalchemy import event
    from sqlalchemy.orm import sessionmaker

    if not isinstance(store, SqlAlchemyStore) or store.db_type != "sqlite" or store.read_engine is not None:
        return
    if any(event.contains(store.engine, "checkout", listener) for listener in (_set_options, _set_options_unflushed)):
        return
    sessions = _get_managed_session_maker(sessionmaker(bind=store.engine), "")  # not said to be SQLite's
    event.listen(store.engine, "checkout", _set_options if flush else _set_options_unflushed)
    store.ManagedSessionMaker = sessions


def _set_options(connection: Any, record: Any, proxy: object) -> None:
    """Set the options of a connection that is used for the first time; the pool may have opened it long before."""
    if record.info.get(SET):
        return
    for option in OPTIONS:
        connection.execute(f"PRAGMA {option}")
    record.info[SET] = True


def _set_options_unflushed(connection: Any, record: Any, proxy: object) -> None:
    is_new = not record.info.get(SET)
    _set_options(connection, record, proxy)
    if is_new and connection.execute("PRAGMA journal_mode").fetchone() == ("wal",):
        connection.execute(f"PRAGMA {UNFLUSHED}")
