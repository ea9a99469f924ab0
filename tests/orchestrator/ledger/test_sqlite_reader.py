"""The SQLite reader reads what MLflow reads, and leaves databases that it does not know to MLflow."""

from __future__ import annotations

import hashlib
import json
import lzma
import subprocess
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.ledger import store
from orchestrator.ledger.artifacts import local_artifact
from orchestrator.ledger.lease import Lease
from orchestrator.ledger.mlflow_ledger import MlflowLedger
from orchestrator.ledger.plan_tags import PLAN_PART
from orchestrator.ledger.records import StoredPlan
from orchestrator.ledger.sqlite_reader import SqliteReader, open_sqlite_reader
from orchestrator.ledger.tags import PLAN_TAG
from orchestrator.services.jobs import artifact_uri, find_job
from orchestrator.settings import Settings
from schemas.errors import StoreError
from schemas.lifecycle import JobState, StopReason
from schemas.order import WorkOrder
from tests.support.doubles import plan_of, result_of

PLANNED = plan_of({"grid": "smoke"}, name="s")
DONE, LOST, *_ = PLANNED.jobs


@pytest.fixture(scope="module")
def settings(new_home: Callable[[], Settings]) -> Settings:
    """A store with one finished job, one that runs without a driver, and others that never began."""
    made = new_home()
    ledger = _ledger(made)
    plan = StoredPlan.of("s", PLANNED.profile, None, PLANNED.jobs, PLANNED.upstream_keys, PLANNED.resources)
    ledger.begin_sweep(plan, 1.0)
    ledger.set_lease("s", Lease(host="elsewhere", pid=1, since=1.0, sign_at=1.0))
    for job in (DONE, LOST):
        ledger.add(job, "s", 2.0)
        ledger.move(job.key, JobState.RUNNING, 3.0, facts={"sweep": "s", "threads": "2"})
    order = WorkOrder(spec=DONE, run_id="r", attempt=1, tracking_uri="", cache_dir="", checkpoint_dir="")
    ledger.move(DONE.key, JobState.SUCCEEDED, 4.0, reason=StopReason.FINISHED, result=result_of(order))
    return made


def _ledger(settings: Settings) -> MlflowLedger:
    return MlflowLedger(store.open_client(settings), settings.store_uri)


def test_it_sees_what_mlflow_shows(settings: Settings) -> None:
    seen, shown = open_sqlite_reader(settings), _ledger(settings)
    assert seen is not None
    assert seen.jobs() == shown.jobs()
    assert seen.jobs([LOST.key]) == shown.jobs([LOST.key])
    assert seen.jobs([]) == {}
    assert seen.standings() == shown.standings()
    assert seen.sweeps() == shown.sweeps()
    assert seen.sweeps()[0].outlines == shown.sweeps()[0].outlines
    assert seen.sweep("s") == shown.sweep("s")
    assert seen.sweep("t") is None
    plan = seen.sweeps()[0].plan
    assert plan == shown.sweeps()[0].plan
    assert plan is not None
    assert [(o.key, o.title, o.upstream and o.upstream.key) for o in plan.outlines] == [
        (job.key, job.title, job.upstream and job.upstream.key) for job in PLANNED.jobs
    ]


def test_it_finds_artifacts_where_mlflow_finds_them(settings: Settings) -> None:
    shown = store.open_client(settings)
    reader = SqliteReader(settings.database or Path(), shown.here)
    run_id = _ledger(settings).get(DONE.key).run_id
    shown.log_text(run_id, "filter,place\n", "filters.csv")
    assert reader.artifact_uri(run_id) == shown.artifact_uri(run_id)
    assert reader.artifact_uri("no-such-run") is None
    file = local_artifact(reader, run_id, "filters.csv")
    assert file is not None
    assert file.read_text() == "filter,place\n"
    assert local_artifact(reader, run_id, "other.csv") is None
    assert local_artifact(_ledger(settings), run_id, "filters.csv") is None


def test_a_job_of_the_embedded_store_is_shown_without_mlflow(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = store.open_client(settings).artifact_uri(_ledger(settings).get(DONE.key).run_id)
    monkeypatch.setattr(store, "open_client", lambda settings: pytest.fail("MLflow was opened"))
    record = find_job(settings, DONE.key)
    assert artifact_uri(settings, record) == expected


def test_runs_that_were_deleted_in_the_ui_are_gone(settings: Settings) -> None:
    seen, shown = open_sqlite_reader(settings), _ledger(settings)
    assert seen is not None
    run_id = shown.get(LOST.key).run_id
    shown.client.delete_run(run_id)
    try:
        assert list(seen.jobs()) == [DONE.key]
        assert list(seen.jobs([DONE.key, LOST.key])) == [DONE.key]
        assert list(seen.standings()) == [DONE.key]
    finally:
        shown.client.restore_run(run_id)


def test_of_two_runs_of_a_job_the_one_that_counts_for_mlflow_stands(settings: Settings) -> None:
    seen, shown = open_sqlite_reader(settings), _ledger(settings)
    assert seen is not None
    tags = shown.client.get_run(shown.get(DONE.key).run_id).data.tags
    untouched = {**tags, "orch.state": "queued", "orch.threads": "0", "orch.driven_by": "another"}
    experiment = shown.client.get_run(shown.get(DONE.key).run_id).info.experiment_id
    twin = shown.client.create_run(experiment, start_time=1, tags=untouched).info.run_id
    try:
        assert seen.standings() == shown.standings()
        assert seen.standings()[DONE.key].state is JobState.SUCCEEDED
    finally:
        shown.client.delete_run(twin)


def test_a_job_whose_state_was_edited_is_refused(settings: Settings) -> None:
    seen, shown = open_sqlite_reader(settings), _ledger(settings)
    assert seen is not None
    run_id = shown.get(LOST.key).run_id
    shown.client.set_tag(run_id, "orch.state", "asleep")
    try:
        with pytest.raises(StoreError, match=f"{run_id}.* was not written by this version"):
            seen.standings()
    finally:
        shown.client.set_tag(run_id, "orch.state", "running")


@pytest.mark.parametrize("index", [True, False])
def test_some_jobs_are_read_without_a_look_at_all_if_there_is_an_index(
    settings: Settings, index: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = open_sqlite_reader(settings)
    assert seen is not None
    assert seen._is_indexed()
    queries: list[str] = []
    read = SqliteReader._read
    monkeypatch.setattr(SqliteReader, "_read", lambda self, *given: queries.append(given[2]) or read(self, *given))
    monkeypatch.setattr(SqliteReader, "_is_indexed", lambda self: index)
    assert list(seen.jobs([LOST.key])) == [LOST.key]
    assert ["wanted" in query for query in queries] == [index]


@pytest.fixture
def plan_tags(settings: Settings) -> Iterator[tuple[MlflowLedger, str, dict[str, str]]]:
    """The ledger, the run of the sweep, and the tags of its plan, which are put back after the test."""
    shown = _ledger(settings)
    run_id = shown.sweeps()[0].run_id
    tags = shown.client.get_run(run_id).data.tags
    plan = {name: value for name, value in tags.items() if name == PLAN_TAG or name.startswith(PLAN_PART)}
    yield shown, run_id, plan
    for name, value in plan.items():
        shown.client.set_tag(run_id, name, value)


def _plan_is_refused(settings: Settings, shown: MlflowLedger, match: str) -> None:
    seen = open_sqlite_reader(settings)
    assert seen is not None
    for reader in (seen, shown):
        with pytest.raises(StoreError, match=match):
            _ = reader.sweeps()[0].plan


@pytest.mark.parametrize("damage", ["", "!", "AAAA"])
def test_a_plan_that_was_damaged_is_refused_by_both_readers(
    settings: Settings, plan_tags: tuple[MlflowLedger, str, dict[str, str]], damage: str
) -> None:
    shown, run_id, plan = plan_tags
    shown.client.set_tag(run_id, f"{PLAN_PART}0", plan[f"{PLAN_PART}0"][:-8] + damage)
    _plan_is_refused(settings, shown, r"\(the tags orch.plan.0, ... of its run\) is damaged")


def test_a_plan_that_a_later_version_wrote_is_refused_by_both_readers(
    settings: Settings, plan_tags: tuple[MlflowLedger, str, dict[str, str]]
) -> None:
    shown, run_id, plan = plan_tags
    later = json.dumps(json.loads(lzma.decompress(b64decode(plan[f"{PLAN_PART}0"]))) | {"jobs": "see elsewhere"})
    shown.client.set_tag(run_id, f"{PLAN_PART}0", b64encode(lzma.compress(later.encode())).decode())
    shown.client.set_tag(run_id, PLAN_TAG, hashlib.sha256(later.encode()).hexdigest())
    _plan_is_refused(settings, shown, "of another version of orch")


def test_the_plan_of_an_earlier_orch_is_read_from_its_file_by_both_readers(
    settings: Settings, plan_tags: tuple[MlflowLedger, str, dict[str, str]]
) -> None:
    shown, run_id, plan = plan_tags
    content = lzma.decompress(b64decode(plan[f"{PLAN_PART}0"])).decode()
    shown.client.delete_tag(run_id, f"{PLAN_PART}0")
    _plan_is_refused(settings, shown, r"artifacts/plan.json\) is gone")
    shown.client.log_text(run_id, content, "plan.json")
    seen = open_sqlite_reader(settings)
    assert seen is not None
    assert seen.sweeps()[0].plan == shown.sweeps()[0].plan
    assert len((seen.sweeps()[0].plan or PLANNED).jobs) == len(PLANNED.jobs)


@pytest.mark.parametrize(("tag", "value"), [("orch.started_at", "yesterday"), ("orch.lease", "mine")])
def test_a_sweep_whose_tags_were_edited_is_refused_by_both_readers(settings: Settings, tag: str, value: str) -> None:
    shown = _ledger(settings)
    run_id = shown.sweeps()[0].run_id
    before = shown.client.get_run(run_id).data.tags[tag]
    shown.client.set_tag(run_id, tag, value)
    try:
        with pytest.raises(StoreError, match=f"{run_id}.* was not written by this version"):
            open_sqlite_reader(settings)
        with pytest.raises(StoreError, match=f"{run_id}.* was not written by this version"):
            shown.sweeps()
    finally:
        shown.client.set_tag(run_id, tag, before)


@pytest.mark.parametrize("content", [b"these bytes are no database", None])
def test_what_it_does_not_know_is_left_to_mlflow(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "mlflow.db").write_bytes(content)
    assert open_sqlite_reader(Settings(home=tmp_path)) is None


def test_another_store_is_left_to_mlflow(tmp_path: Path) -> None:
    assert open_sqlite_reader(Settings(home=tmp_path, tracking_uri="http://127.0.0.1:9")) is None


def test_status_loads_no_mlflow(settings: Settings) -> None:
    script = (
        "import sys; from orchestrator.cli.main import main\n"
        "try: main(['status', 's', '--json'])\n"
        "except SystemExit: pass\n"
        "assert 'mlflow' not in sys.modules and 'torch' not in sys.modules"
    )
    environment = {"ORCH_HOME": str(settings.root), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True)
    counts = json.loads(done.stdout)["counts"]
    assert counts == {"done": 1, "lost": 1, "new": len(PLANNED.jobs) - 2}
