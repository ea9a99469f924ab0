"""A store that cannot be used is refused with the reason."""

from __future__ import annotations

import errno
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.ledger import store
from orchestrator.ledger.store_version import installed_schemas
from orchestrator.settings import Settings
from schemas.errors import StoreError


def settings(home: Path, **more: object) -> Settings:
    return Settings.model_validate({"home": home, **more})


def test_a_home_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("x")
    with pytest.raises(StoreError, match=r"ORCH_HOME .* cannot be written"):
        store.prepare_home(settings(tmp_path / "home"))


def test_a_home_that_cannot_be_made_is_refused() -> None:
    with pytest.raises(StoreError, match="set ORCH_HOME to a folder"):
        store.prepare_home(settings(Path("/proc/orch")))


def test_a_full_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_bytes(path: Path, data: bytes) -> int:
        with path.open("xb"):
            if data:
                raise OSError(errno.ENOSPC, "No space left on device")
        return 0

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with pytest.raises(StoreError, match=r"No space left on device.*make room"):
        store.prepare_home(settings(tmp_path))
    assert not list(tmp_path.glob(".probe*"))


def test_a_store_that_is_no_database_is_refused_and_kept(tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    database.write_text("not a database")
    with pytest.raises(StoreError, match="cannot be read as a SQLite database"):
        store.open_client(settings(tmp_path))
    assert database.read_text() == "not a database"


def test_a_store_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").mkdir()
    with pytest.raises(StoreError, match="is a folder"):
        store.open_client(settings(tmp_path))


def test_a_store_that_another_program_holds_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(database, isolation_level=None)) as holder:
        holder.execute("CREATE TABLE x (y)")
        holder.execute("BEGIN EXCLUSIVE")
        monkeypatch.setattr(store, "BUSY_SECONDS", 0.05)
        with pytest.raises(StoreError, match=r"cannot be written .*locked"):
            store.check_writable(settings(tmp_path))


def test_asking_whether_a_store_can_be_written_leaves_it_as_it_was(tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE x (y)")
        connection.commit()
        store.check_writable(settings(tmp_path))
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("x",)]


def test_a_server_that_does_not_answer_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"No MLflow server answers at http://127.0.0.1:9"):
        store.open_client(settings(tmp_path, tracking_uri="http://127.0.0.1:9"))


@pytest.mark.slow
def test_the_store_is_new_once_then_in_wal_mode(tmp_path: Path) -> None:
    config = settings(tmp_path)
    assert not store.exists(config)
    store.prepare_home(config)
    assert store.make_client(config).get_experiment_by_name(store.EXPERIMENT) is not None
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


MAKE = "import sys; from orchestrator.ledger import store; from orchestrator.settings import Settings; "
MAKE += "print(store.make_client(Settings(home=sys.argv[1])).get_experiment_by_name(store.EXPERIMENT).name)"


@pytest.mark.slow
def test_sweeps_that_begin_together_in_a_new_home_share_one_store(tmp_path: Path) -> None:
    makers = [
        subprocess.Popen(
            [sys.executable, "-c", MAKE, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    answers = [maker.communicate(timeout=120) for maker in makers]
    assert [out.strip() for out, _ in answers] == [store.EXPERIMENT] * 2, answers


@pytest.mark.slow
def test_a_store_whose_making_was_killed_is_made_afresh(tmp_path: Path) -> None:
    maker = subprocess.Popen([sys.executable, "-c", MAKE, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        while not any(path.stat().st_size for path in tmp_path.glob("mlflow.*") if path.suffix != ".lock"):
            assert maker.poll() is None
    finally:
        maker.kill()
        maker.communicate()
    assert store.make_client(settings(tmp_path)).get_experiment_by_name(store.EXPERIMENT) is not None


def test_looking_at_a_store_keeps_the_locks_that_this_process_holds_on_it(tmp_path: Path) -> None:
    """POSIX drops all locks of a process on a file when it closes any handle on it."""
    config = settings(tmp_path)
    database = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(database, isolation_level=None)) as mine:
        mine.execute("CREATE TABLE alembic_version (version_num)")
        mine.execute("INSERT INTO alembic_version VALUES (?)", (installed_schemas().newest,))
        mine.execute("BEGIN IMMEDIATE")
        store._check_database(database)
        assert store.exists(config)
        code = f"import sqlite3; sqlite3.connect({str(database)!r}, timeout=0).execute('BEGIN IMMEDIATE')"
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "database is locked" in other.stderr


def test_the_log_of_a_database_that_was_moved_away_is_not_replayed_into_a_new_one(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db-wal").write_bytes(b"frames of another database")
    with pytest.raises(StoreError, match=r"mlflow\.db-wal belongs to a database that was moved away without it"):
        store.make_client(settings(tmp_path))
    assert not (tmp_path / "mlflow.db").exists()


def test_jobs_are_found_by_an_index(tmp_path: Path) -> None:
    own = settings(tmp_path / "home")
    store.prepare_home(own)
    store.make_client(own)
    assert own.database is not None
    with closing(sqlite3.connect(own.database)) as connection:
        plan = connection.execute(
            "EXPLAIN QUERY PLAN SELECT run_uuid FROM tags WHERE key = ? AND value = ?", ("orch.job_key", "a")
        ).fetchall()
    assert "orch_job_key" in plan[0][-1]
