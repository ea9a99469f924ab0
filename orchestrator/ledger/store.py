"""Opens the MLflow store: creates it once, in WAL mode, or says why it cannot be used."""

from __future__ import annotations

import logging
import os
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from orchestrator.ledger.database import BUSY_SECONDS, index_tags, reading
from orchestrator.ledger.experiment import Found, NoExperiment, candidates_in, choose
from orchestrator.ledger.home import relocation_of, settle
from orchestrator.ledger.store_version import (
    EXPERIMENT,
    LEDGER_TAG,
    LEDGER_VERSION,
    check_database,
    check_ledger_version,
)
from orchestrator.ledger.tags import TAG_INDEXES
from orchestrator.settings import Settings, sqlite_uri
from schemas.errors import StoreError, StoreUnreachable
from workers.tracking.access import check_login, denial, is_denied, without_password
from workers.tracking.outages import is_full_disk, is_outage, store_errors, wait_briefly
from workers.tracking.sessions import set_options_once

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from orchestrator.ledger.home_client import HomeClient

FULL_DISK = "disk is full"
"""Part of SQLite's error message."""
PROBE_BYTES = 1 << 20
"""Size of the file that tests whether ORCH_HOME can be written."""
MAKING_SECONDS = 120.0
"""How long to wait for another process that is creating the store."""
_MLFLOW_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}


def quiet_mlflow() -> None:
    """Turn off MLflow's telemetry and log lines and shorten its retries, in this process and its children."""
    wait_briefly()
    for name, value in _MLFLOW_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it logs a traceback of what it raises


def exists(settings: Settings) -> bool:
    """Return whether there is a store to read, without importing MLflow. A server counts as existing."""
    return settings.database is None or settings.database.exists()


def prepare_home(settings: Settings) -> None:
    """Create ORCH_HOME and its folders, and check that it can be written.

    Raises:
        StoreError: It is a file, or cannot be created or written.
    """
    home = settings.root
    try:
        for folder in (home, settings.cache_dir, settings.checkpoint_dir, settings.lock_dir):
            folder.mkdir(parents=True, exist_ok=True)
        probe = home / f".probe-{os.getpid()}"
        try:
            probe.write_bytes(bytes(PROBE_BYTES))  # a full disk still takes empty files
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(
            f"ORCH_HOME {home} cannot be written ({error.strerror or error}). "
            "Repair its permissions, make room, or set ORCH_HOME to a folder that can be written."
        ) from error


def open_client(settings: Settings) -> HomeClient:
    """Return a client of the store. Nothing is created or changed.

    Raises:
        NoExperiment: No sweep was begun in the store yet, or there is no store.
        StoreError: The store cannot be reached or read, or is of another version; or orch's experiment was deleted.
    """
    database = settings.database
    if database is None:
        _check_server(settings.store_uri)
    elif not _check_database(database):
        raise NoExperiment(f"There is no store at {database} yet. To create one, run: orch sweep --grid first")
    client = _connect(settings)
    with reaching(settings.store_uri):
        experiment = experiment_of(client, settings.store_uri)
        check_ledger_version(experiment.tags, without_password(settings.store_uri))
    return client


def store_id(client: MlflowClient, uri: str) -> str:
    """Return a text that identifies a store, the same on every machine and by whichever address it is reached.

    Args:
        client: A client of the store.
        uri: The store, for messages.

    Raises:
        StoreError: The store cannot be read, or holds no experiment of orch.
    """
    with reaching(uri):
        found = client.get_experiment(experiment_of(client, uri).experiment_id)
        return f"{found.experiment_id} {found.creation_time}"


def experiment_of(client: MlflowClient, uri: str) -> Found:
    """Return orch's experiment, whatever it is called now.

    Args:
        client: A client of the store.
        uri: The store, for messages.

    Raises:
        NoExperiment: There is none.
        StoreError: It was deleted, or there are several.
    """
    return choose(candidates_in(client), without_password(uri))


def make_client(settings: Settings) -> HomeClient:
    """Return a client of the store, for a command that drives a sweep: what does not exist is created first.

    Raises:
        StoreError: The store cannot be reached, read or written, is of another version or belongs to another home.
    """
    database = settings.database
    if database is None:
        _check_server(settings.store_uri)
        client = _with_experiment(settings)
        settle(settings)
        return client
    _check_database(database)
    if _is_complete(database):
        client = _with_experiment(settings)
        settle(settings)
        index_tags(database, TAG_INDEXES)
        return client
    try:
        with FileLock(f"{database}.lock", timeout=MAKING_SECONDS):
            if not database.exists():
                _create(database, settings)
            client = _with_experiment(settings)
            settle(settings)
            _switch_to_wal(database)
            index_tags(database, TAG_INDEXES)
    except Timeout as error:
        raise StoreError(
            f"The store {database} is still being created by another process after {MAKING_SECONDS:.0f} s. "
            "Wait for that process, or stop it and try again."
        ) from error
    except OSError as error:
        raise StoreError(
            f"The store {database} cannot be created ({error.strerror or error}). Repair the permissions of its folder."
        ) from error
    return client


def _connect(settings: Settings) -> HomeClient:
    quiet_mlflow()
    with reaching(settings.store_uri):
        from orchestrator.ledger.home_client import HomeClient

        quiet_mlflow()
        client = HomeClient(settings.store_uri, relocation_of(settings))
        set_options_once(client)
        return client


def _with_experiment(settings: Settings) -> HomeClient:
    client = _connect(settings)
    with reaching(settings.store_uri):
        try:
            experiment = experiment_of(client, settings.store_uri)
        except NoExperiment:
            version = {LEDGER_TAG: LEDGER_VERSION}
            client.create_experiment(EXPERIMENT, artifact_location=settings.artifact_uri, tags=version)
        else:
            check_ledger_version(experiment.tags, without_password(settings.store_uri))
    return client


def _create(database: Path, settings: Settings) -> None:
    """Create the database under another name first: if MLflow is killed while it migrates, the file is unusable.

    Raises:
        StoreError: The log of a database that was moved away is still there: SQLite would replay it into the new one.
    """
    for log in (database.with_name(f"{database.name}{end}") for end in ("-wal", "-journal")):
        if log.exists() and log.stat().st_size:
            raise StoreError(
                f"{log} belongs to a database that was moved away without it, and would be replayed into a new one. "
                "Move it beside that database, under its name, then try again."
            )
    partial = database.with_suffix(".partial")
    for leftover in partial.parent.glob(f"{partial.name}*"):
        leftover.unlink()
    quiet_mlflow()
    with reaching(settings.store_uri):
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        quiet_mlflow()
        SqlAlchemyStore(sqlite_uri(partial), settings.artifact_uri).engine.dispose()  # type: ignore[no-untyped-call]
        _switch_to_wal(partial)
        partial.rename(database)


def _is_complete(database: Path) -> bool:
    """Return whether the database is in WAL mode, which is the last step of creating it."""
    if not database.exists():
        return False
    with closing(sqlite3.connect(database, timeout=BUSY_SECONDS)) as connection:
        return bool(connection.execute("PRAGMA journal_mode").fetchone() == ("wal",))


def check_writable(settings: Settings) -> None:
    """Check that the embedded store can be written, if there is one.

    Raises:
        StoreError: It is read-only, or locked for longer than BUSY_SECONDS.
    """
    database = settings.database
    if database is None or not database.exists():
        return
    try:
        with closing(sqlite3.connect(database, timeout=BUSY_SECONDS)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("CREATE TABLE orch_probe (x)")
            connection.rollback()
    except sqlite3.Error as error:
        raise StoreError(
            f"The store {database} cannot be written ({error}). Repair its permissions, make room on the disk, or stop "
            "the program that locks it."
        ) from error


def _check_database(database: Path) -> bool:
    """Check the file through SQLite only: closing any other handle on it drops the locks this process holds on it.

    Returns:
        True if it has MLflow's tables; False if it is empty or does not exist.
    """
    if database.is_dir():
        raise StoreError(f"The store {database} is a folder, not a database. Move it away, or set ORCH_HOME.")
    if not database.exists():
        return False
    try:
        with reading(database) as connection:
            return check_database(database, connection)
    except sqlite3.Error as error:
        raise StoreError(
            f"The store {database} cannot be read as a SQLite database ({error}). "
            "Repair its permissions, restore it from a copy, or move it away (with its -wal and -shm files) to start "
            "a new one."
        ) from error


def _check_server(uri: str) -> None:
    """Check that a server answers, because MLflow itself retries for minutes before it raises."""
    if not uri.startswith(("http://", "https://")):
        with reaching(uri):
            check_login(uri)
        return
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=10):
            return
    except (urllib.error.URLError, OSError) as error:
        if isinstance(error, urllib.error.HTTPError) and error.code in (401, 403):
            return  # a proxy in front of it wants the credentials that only MLflow's client sends
        raise StoreError(
            without_password(f"No MLflow server answers at {uri} ({error}). Start it, or repair ORCH_TRACKING_URI.")
        ) from error


def _switch_to_wal(database: Path) -> None:
    """Switch the file to WAL mode for good, so that readers do not wait for writers."""
    with suppress(sqlite3.OperationalError), closing(sqlite3.connect(database, timeout=BUSY_SECONDS)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")  # fails while others use it; whoever opens it next tries again


@contextmanager
def reaching(uri: str) -> Iterator[None]:
    """Turn errors of MLflow and its database into StoreError: StoreUnreachable if a retry may succeed, and AccessDenied
    if the store refuses our credentials.

    Args:
        uri: The store, for messages.
    """
    try:
        yield
    except store_errors() as error:
        if is_denied(error):
            raise denial(uri, error) from error
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        first_line = next((line for line in lines if FULL_DISK in line), lines[0])
        kind = StoreUnreachable if is_outage(error) else StoreError
        advice = "Check that it runs, can be written and belongs to this version of MLflow."
        if FULL_DISK in str(error).lower() or is_full_disk(error):
            advice = "Make room on that disk."
        raise kind(without_password(f"The store {uri} cannot be used: {first_line}. {advice}")) from error
