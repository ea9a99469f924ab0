"""`orch table` and `orch compare`: rows of jobs, means over groups, and pairs of two sets of jobs."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from orchestrator.cli.main import main
from orchestrator.ledger import opening
from orchestrator.ledger.memory import InMemoryLedger
from orchestrator.ledger.records import StoredPlan
from orchestrator.services import tables
from orchestrator.settings import Settings
from schemas.errors import StoreError
from schemas.job import JobSpec
from schemas.lifecycle import JobState, StopReason
from schemas.results import JobResult
from tests.support.doubles import metrics
from tests.support.reports import sweep_of

CATEGORIES = ("bird", "cat", "cow", "dog", "horse", "sheep")


def instability(spec: JobSpec) -> float:
    """Of an ordinary network 0.1, 0.2, ... by category; of an interpretable one 0.05 less."""
    place = 1 + CATEGORIES.index(spec.data.categories[0].partition("/")[2])
    return 0.1 * place - (0.05 if spec.model.variant == "interpretable" else 0.0) + 1e-12 / 3


def fill(ledger: InMemoryLedger, sweep: dict[str, Any], *, failed: str = "") -> None:
    planned, jobs = sweep_of(sweep, backbones=())
    ledger.begin_sweep(
        StoredPlan.of(planned.name, "laptop", None, planned.jobs, planned.upstream_keys, planned.resources), 0.0
    )
    for spec in [spec for spec in jobs if spec.key not in ledger.jobs()]:
        ledger.add(spec, planned.name, 0.0)
        ledger.move(spec.key, JobState.RUNNING, 1.0)
        if spec.title == failed:
            ledger.move(spec.key, JobState.FAILED, 2.0, reason=StopReason.OUT_OF_MEMORY)
            continue
        found = metrics(0.9 + spec.seed / 100, instability(spec))
        result = JobResult(job_key=spec.key, attempt=1, stop_reason=StopReason.FINISHED, metrics=found)
        ledger.move(spec.key, JobState.SUCCEEDED, 2.0, reason=StopReason.FINISHED, result=result)


def voc(name: str, **more: Any) -> dict[str, Any]:
    axes = {"category": [f"voc_part/{one}" for one in CATEGORIES], "variant": ["ordinary", "interpretable"]}
    return {"name": name, "base": {"backbone": "alexnet"}, "axes": axes | more}


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    ledger = InMemoryLedger()
    fill(ledger, voc("voc"))
    fill(ledger, voc("seeds", category=["voc_part/cat"], seed=[0, 1]), failed="voc-cat alexnet ordinary seed 1")
    mixed = [
        {"category": ["voc_part/dog", "voc_part/cat"], "loss": "softmax", "weights": {"source": "random"}},
        {"category": "voc_part/cat", "weights": {"source": "pretrain", "epochs": 3}},
    ]
    fill(ledger, {"name": "mixed", "base": {"backbone": "alexnet", "variant": "ordinary"}, "include": mixed})
    fill(ledger, voc("late", category=["voc_part/cow"], seed=[2]))
    monkeypatch.setattr(opening, "open_ledger", lambda settings: ledger)
    return Settings()


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(list(words))
    return int(end.value.code or 0)


# -- table --------------------------------------------------------------------------------------------------------


def test_a_row_has_the_fields_and_the_metrics_of_a_job_and_pretraining_is_none(settings: Settings) -> None:
    rows = tables.job_table(settings, "seeds", where={})
    assert list(rows["title"]) == [
        "voc-cat alexnet ordinary",
        "voc-cat alexnet ordinary seed 1",
        "voc-cat alexnet interpretable",
        "voc-cat alexnet interpretable seed 1",
    ]
    assert list(rows["location_instability"].fillna(-1)) == pytest.approx([0.2, -1, 0.15, 0.15])
    assert list(rows["data.categories"]) == ["voc_part/cat"] * 4
    assert list(rows["state"]) == ["succeeded", "failed", "succeeded", "succeeded"]


def test_groups_have_means_and_deviations_of_the_jobs_that_have_succeeded(settings: Settings) -> None:
    found = tables.job_table(settings, "seeds", by=["variant"], where={}, metrics=["test_accuracy"])
    assert list(found["model.variant"]) == ["ordinary", "interpretable"]
    assert list(found["jobs"]) == [1, 2]
    assert found["test_accuracy"].tolist() == pytest.approx([0.9, 0.905])
    assert pd.isna(found["test_accuracy_sd"][0])
    assert found["test_accuracy_sd"][1] == pytest.approx(0.01 / 2**0.5)


@pytest.mark.parametrize(
    ("where", "titles"),
    [
        ({"category": "cat", "variant": "ordinary"}, ["voc-cat alexnet ordinary"]),
        ({"category": "voc_part/cow", "variant": "interpretable"}, ["voc-cow alexnet interpretable"]),
    ],
)
def test_conditions_narrow_the_rows(settings: Settings, where: dict[str, str], titles: list[str]) -> None:
    assert list(tables.job_table(settings, "voc", where=where)["title"]) == titles


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("table", "voc", "--by", "train.learning"), "No field or metric of these jobs is called 'train.learning'"),
        (("table", "voc", "--where", "variant=both"), "No job has model.variant=both. Its values here: interpretable"),
        (("table", "voc", "--where", "variant"), "Write FIELD=VALUE"),
        (("table", "voc", "--where", "variant=a", "--where", "model.variant=b"), "named twice"),
        (("table", "voc", "--metric", "accuracy"), "No metric is called 'accuracy'"),
        (("table", "voc", "--format", "parquet"), "Name it with `--out jobs.parquet`"),
        (("table", "seeds", "--by", "seed", "--where", "state=failed"), "None of these jobs has succeeded"),
        (("table", "voc", "--by", "test_accuracy"), "test_accuracy is a metric, which no two jobs share"),
        (("table", "voc", "--out", "missing/jobs.csv"), "cannot be written"),
        (("compare", "seeds@variant=interpretable", "late@variant=ordinary"), "they differ only in seed. Narrow it"),
        (("compare", "voc@variant=ordinary", "seeds@state=failed"), "The second of the two has no job"),
        (("compare", "voc@category=cat", "voc@category=dog,variant"), "'variant' is no condition"),
    ],
)
@pytest.mark.usefixtures("settings")
def test_what_cannot_be_shown_is_refused(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*words) == 2
    assert message in capsys.readouterr().err


def test_a_network_of_several_categories_is_not_meant_by_the_last_of_them(settings: Settings) -> None:
    both = tables.job_table(settings, "mixed", where={})
    assert list(both["data.categories"]) == ["voc_part/dog + voc_part/cat", "voc_part/cat"]
    one = tables.job_table(settings, "mixed", where={"category": "cat"})
    assert list(one["data.categories"]) == ["voc_part/cat"]


def test_whole_numbers_stay_whole_where_some_jobs_have_none(settings: Settings) -> None:
    frame = tables.job_table(settings, "mixed", where={})
    assert str(frame["weights.epochs"].dtype) == "Int64"
    assert len(tables.job_table(settings, "mixed", where={"weights.epochs": "3"})) == 1


def test_a_field_that_is_named_twice_counts_once(settings: Settings) -> None:
    found = tables.job_table(settings, "seeds", by=["variant", "model.variant"], where={})
    assert list(found.columns[:2]) == ["model.variant", "jobs"]


def test_a_sweep_that_was_never_planned_has_no_table(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "sweep_status", lambda *_: SimpleNamespace(record=SimpleNamespace(plan=None)))
    with pytest.raises(StoreError, match="stopped before it was planned"):
        tables.job_table(settings, "voc", where={})


def test_an_unknown_sweep_is_a_store_error(settings: Settings) -> None:
    with pytest.raises(StoreError, match="No sweep is called 'vok'"):
        tables.job_table(settings, "vok", where={})


@pytest.mark.usefixtures("settings")
def test_the_table_for_people_and_its_files_agree(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run("table", "voc", "--by", "variant", "--metric", "location_instability") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["model.variant", "jobs", "instability"]
    assert lines[1].split() == ["ordinary", "6", "0.3500", "±", "0.1871"]
    assert run("table", "voc", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    for name, read in (("a.csv", pd.read_csv), ("a.parquet", pd.read_parquet)):
        assert run("table", "voc", "--out", str(tmp_path / name), "--json") == 0
        assert json.loads(capsys.readouterr().out) == {"file": str(tmp_path / name), "rows": 12}
        again = read(tmp_path / name)  # type: ignore[operator]
        assert list(again["location_instability"]) == [row["location_instability"] for row in rows]
        assert list(again["title"]) == [row["title"] for row in rows]


# -- compare ------------------------------------------------------------------------------------------------------


def test_two_parts_of_a_sweep_are_compared_category_by_category(settings: Settings) -> None:
    found = tables.compare(settings, "voc@variant=ordinary", "voc@variant=interpretable")
    assert found.between["model.variant"] == ("ordinary", "interpretable")
    assert (list(found.between), found.paired_by) == (["model.variant"], ("data.categories",))
    assert found.alone == (0, 0)
    (instability,) = [one for one in found.differences if one.metric == "location_instability"]
    assert (instability.pairs, instability.better) == (6, 6)
    assert (instability.first, instability.second, instability.mean) == pytest.approx((0.35, 0.30, -0.05))
    assert instability.interval == pytest.approx((-0.05, -0.05))
    assert instability.p == pytest.approx(2 / 2**6)  # all six of one sign, two-sided
    (accuracy,) = [one for one in found.differences if one.metric == "test_accuracy"]
    assert (accuracy.mean, accuracy.p, accuracy.better) == (0.0, None, 0)


def test_every_field_that_tells_the_two_apart_is_named(settings: Settings) -> None:
    found = tables.compare(settings, "voc@category=cow,variant=ordinary", "late@variant=interpretable")
    assert found.between == {"model.variant": ("ordinary", "interpretable"), "seed": ("0", "2")}


def test_jobs_without_a_partner_are_counted_and_few_pairs_are_not_tested(settings: Settings) -> None:
    found = tables.compare(settings, "seeds@variant=ordinary", "seeds@variant=interpretable")
    assert found.alone == (0, 1)  # the failed one's partner
    assert [(one.pairs, one.interval, one.p) for one in found.differences] == [(1, None, None)] * 2


def test_jobs_that_agree_in_nothing_but_what_tells_them_apart_are_one_pair(settings: Settings) -> None:
    found = tables.compare(settings, "voc@category=cat,variant=ordinary", "voc@category=cow,variant=ordinary")
    assert len(found.pairs) == 1
    assert found.between["data.categories"] == ("voc_part/cat", "voc_part/cow")


@pytest.mark.usefixtures("settings")
def test_the_comparison_for_people_and_programs(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("compare", "voc@variant=ordinary", "voc@variant=interpretable", "--metric", "location_instability")
    assert run(*words, "--pairs") == 0
    out = capsys.readouterr().out
    assert out.startswith("first -> second: model.variant ordinary -> interpretable")
    assert "instability     6 0.3500 0.3000    -0.0500 -0.0500 to -0.0500 0.0312 6 of 6" in out
    assert "voc_part/cow" in out
    assert run(*words, "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["differences"][0]["better"] == 6
    assert answer["pairs"][2]["location_instability_second"] == pytest.approx(0.25)
