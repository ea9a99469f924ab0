"""Reports of sweeps, and the commands that fill missing values."""

from __future__ import annotations

import base64
import io
import json
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from orchestrator.cli.main import main
from orchestrator.ledger import opening
from orchestrator.ledger.base import Ledger
from orchestrator.ledger.memory import InMemoryLedger
from orchestrator.ledger.mlflow_ledger import MlflowLedger
from orchestrator.planning.diff import PlannedJob, PlanStatus
from orchestrator.report.build import build_report
from orchestrator.report.suggestions import incomplete_error, suggest_commands
from orchestrator.services.reports import Format, format_for, read_tables
from orchestrator.settings import Settings
from schemas.errors import SpecError, StoreError
from schemas.lifecycle import JobState, StopReason
from tests.support.reports import done, stored, sweep_of

if TYPE_CHECKING:
    from tests.conftest import Store


def fill(ledger: Ledger, planned: Any, jobs: list[Any], name: str) -> None:
    ledger.begin_sweep(stored(replace(planned, name=name)), 0.0)
    for spec in jobs:
        ledger.add(spec, name, 0.0)
        ledger.move(spec.key, JobState.RUNNING, 1.0)
        record = done(spec).record
        assert record is not None
        ledger.move(spec.key, JobState.SUCCEEDED, 2.0, reason=StopReason.FINISHED, result=record.result)


@pytest.fixture
def birds() -> Ledger:
    ledger = InMemoryLedger()
    fill(ledger, *sweep_of("cub200"), name="birds")
    return ledger


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(list(words))
    return int(end.value.code or 0)


# -- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def command(birds: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "open_ledger", lambda settings: birds)


@pytest.mark.usefixtures("command")
def test_an_incomplete_table_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("report", "birds", "--table", "5", "--no-log") == 0
    text = capsys.readouterr().out
    assert "alexnet  bird         0.200  0.150  +0.050" in text
    assert "vgg16" not in text
    assert "2 of 8 in Table 5. To list the missing ones: orch report birds --strict" in text


@pytest.mark.usefixtures("command")
def test_strict_refuses_an_incomplete_table_with_the_command_that_fills_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("report", "birds", "--table", "5", "--no-log", "--strict") == 2
    error = capsys.readouterr().err
    assert "Table 5 lacks 6 networks (cub200 bird: vgg_m, vgg_s, vgg16)" in error
    assert "orch sweep --grid cub200 --profile laptop --backbone alexnet,vgg_m,vgg_s,vgg16 --name birds-cub200" in error
    assert error.rstrip().endswith("orch report birds --table 5")


@pytest.mark.usefixtures("command")
def test_a_table_for_which_the_sweep_has_nothing_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("report", "birds", "--table", "3", "--no-log") == 2
    assert "Sweep birds has no value for Table 3 yet" in capsys.readouterr().err


@pytest.mark.usefixtures("command")
def test_the_files_name_chooses_the_format(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "table5.tex"
    assert run("report", "birds", "--table", "5", "--no-log", "--out", str(out)) == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert out.read_text().startswith(r"\begin{table}")
    assert run("report", "birds", "--no-log", "--out", str(tmp_path / "nix" / "a.md")) == 2
    assert "Name another `--out`" in capsys.readouterr().err


@pytest.mark.usefixtures("command")
def test_the_json_is_for_programs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run("report", "birds", "--no-log", "--json") == 0
    assert {value["table"] for value in json.loads(capsys.readouterr().out)["values"]} == {5, 7}
    out = tmp_path / "r.md"
    assert run("report", "birds", "--no-log", "--json", "--out", str(out)) == 0
    assert json.loads(capsys.readouterr().out) == {"file": str(out)}
    assert out.read_text().startswith("# birds")


def test_formats_by_suffix() -> None:
    assert format_for(Path("a.HTML")) is Format.HTML
    assert format_for(Path("a.txt")) is format_for(None) is Format.TEXT


# -- reading ----------------------------------------------------------------------------------------------------------


def test_what_cannot_be_reported_is_refused(birds: Ledger) -> None:
    with pytest.raises(StoreError, match="No sweep is called 'bird'"):
        read_tables(Settings(), birds, "bird")
    with pytest.raises(SpecError, match="no Table 8"):
        read_tables(Settings(), birds, "birds", (8,))
    ledger = InMemoryLedger()
    ledger.begin_sweep(stored(sweep_of("cub200")[0]), 0.0)
    with pytest.raises(SpecError, match="no value for any of the paper's tables yet"):
        read_tables(Settings(), ledger, "cub200-laptop-" + sweep_of("cub200")[0].name.rsplit("-", 1)[1])


def test_the_report_is_left_in_the_sweeps_run_with_pictures_of_filters(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.ledger.store.open_client", lambda settings: store.client)
    settings = Settings(tracking_uri=store.uri)
    ledger = MlflowLedger(store.client, store.uri, experiment="tests")
    planned, jobs = sweep_of("cub200")
    fill(ledger, planned, jobs, "reported")
    Image.new("RGB", (2000, 10), "orange").save(tmp_path / "filters.png")
    for spec in jobs:
        store.client.log_artifact(ledger.get(spec.key).run_id, str(tmp_path / "filters.png"), "figures")
    found = read_tables(settings, ledger, "reported")
    found.log()
    sweep = ledger.sweep("reported")
    assert sweep is not None
    assert {file.path for file in store.client.list_artifacts(sweep.run_id, "report")} == {
        "report/tables.html", "report/tables.md",
    }  # fmt: skip
    page = Path(store.client.download_artifacts(sweep.run_id, "report/tables.html", str(tmp_path))).read_text()
    pictures = [base64.b64decode(found) for found in re.findall(r"data:image/webp;base64,([^\"]+)", page)]
    assert [Image.open(io.BytesIO(picture)).size for picture in pictures] == [(1000, 5), (1000, 5)]


# -- what fills the gaps ----------------------------------------------------------------------------------------------


def commands(text: str) -> list[list[str]]:
    return [shlex.split(found) for found in re.findall(r"orch (sweep [^;(\n]*)", text)]


@pytest.mark.parametrize("sets", [{}, {"train.epochs": 7, "filter_loss.weight": 0.5}])
def test_the_command_plans_the_missing_networks_and_keeps_what_is_finished(
    capsys: pytest.CaptureFixture[str], sets: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ORCH_HOME", str(tmp_path))
    planned, jobs = sweep_of("voc-part", categories=("cat", "dog"), sets=sets)
    report = build_report("s", [done(job) for job in jobs], frozenset(), (4,))
    ((_, *words),) = commands(" ".join(suggest_commands(stored(planned), report.missing)))
    assert run("plan", *words, "--json") == 0
    titles = {job["title"] for job in json.loads(capsys.readouterr().out)["jobs"]}
    wanted = {f"voc-{c.place.category} {c.backbone} {c.variant}" for c in report.missing}
    assert len(wanted) == 6 * 8 - 4
    assert {re.sub(r" \(weight 0.5\)", "", title) for title in titles} >= wanted
    assert titles >= {job.title for job in jobs}


def test_jobs_that_are_not_done_are_filled_by_resuming() -> None:
    planned, jobs = sweep_of("cub200", backbones=("alexnet", "vgg_m", "vgg_s", "vgg16"))
    states = [PlanStatus.NEW, PlanStatus.FAILED]
    for status, retry in zip(states, ("", " --failed"), strict=True):
        mixed = [PlannedJob(jobs[0], status, ""), *(done(job) for job in jobs[1:])]
        report = build_report(planned.name, mixed, frozenset(), (5,))
        assert suggest_commands(stored(planned), report.missing) == [
            f"To run the sweep's unfinished jobs: orch resume {planned.name}{retry}"
        ]


def test_a_measure_that_a_finished_job_lacks_has_no_command() -> None:
    planned, jobs = sweep_of("voc-part", backbones=("alexnet", "vgg_m", "vgg_s", "vgg16"))
    report = build_report("s", [done(job) for job in jobs], frozenset(), (1,))
    assert len(report.missing) == 48
    assert commands(str(incomplete_error(stored(planned), report.missing))) == []


def test_a_sweep_with_axes_of_its_own_is_told_to_take_a_sweep_file() -> None:
    planned, jobs = sweep_of({"grid": "cub200", "axes": {"filter_loss.weight": [0.1, 1.0]}})
    report = build_report("s", [done(job) for job in jobs], frozenset(), (5,))
    assert "in a sweep file that begins `grid: cub200`" in str(incomplete_error(stored(planned), report.missing))
