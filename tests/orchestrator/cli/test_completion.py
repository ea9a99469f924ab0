"""What the shell offers for sweeps and jobs of the store, and for fields and their values."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.cli.completion import (
    answer_in_lines,
    complete_assignment,
    complete_job,
    complete_sweep,
    complete_target,
)
from orchestrator.cli.shell_scripts import BASH
from orchestrator.ledger import sqlite_reader
from orchestrator.ledger.memory import InMemoryLedger
from orchestrator.ledger.records import StoredPlan
from orchestrator.planning.typed import SETTABLE, choices, typed_value
from orchestrator.yaml_text import parse
from schemas.errors import StoreError
from tests.support.reports import sweep_of

PLANNED, JOBS = sweep_of("first", name="first-look")


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch) -> InMemoryLedger:
    ledger = InMemoryLedger()
    plan = StoredPlan.of("first-look", "laptop", None, PLANNED.jobs, PLANNED.upstream_keys, PLANNED.resources)
    for name in ("first-look", "second"):
        ledger.begin_sweep(plan.model_copy(update={"name": name}), 0.0)
    for spec in JOBS:
        ledger.add(spec, "first-look", 0.0)
    monkeypatch.setattr(sqlite_reader, "open_sqlite_reader", lambda settings: ledger)
    return ledger


@pytest.mark.usefixtures("ledger")
def test_sweeps_and_jobs_of_the_store_are_offered() -> None:
    assert complete_sweep("fir") == [("first-look", "")]
    cat = next(job for job in JOBS if job.title == "voc-cat alexnet ordinary")
    assert complete_job(cat.key[:6]) == [(cat.key, cat.title)]
    assert complete_target("second") == [("second", "")]


def test_without_a_store_that_can_be_read_at_once_nothing_is_offered(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert complete_target("") == []

    def refuse(settings: object) -> None:
        raise StoreError("of another version")

    monkeypatch.setattr(sqlite_reader, "open_sqlite_reader", refuse)
    assert complete_target("") == []
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("incomplete", "offered"),
    [
        ("train.epo", ["train.epochs="]),
        ("train.epochs=", []),
        ("train.ba", ["train.batch_size="]),
        ("los", ["loss=logistic", "loss=softmax"]),
        ("loss=so", ["loss=softmax"]),
        ("variant=", ["variant=ordinary", "variant=interpretable"]),
        ("backbone=vgg1", ["backbone=vgg16"]),
        ("train.horizontal_flip=", ["train.horizontal_flip=true", "train.horizontal_flip=false"]),
        ("category=voc_part/c", ["category=voc_part/cat", "category=voc_part/cow"]),
        ("data.categories=hippo", ["data.categories=hippopotamus"]),
        ("no_such_field=", []),
    ],
)
def test_values_of_a_field_that_takes_only_some_are_offered(incomplete: str, offered: list[str]) -> None:
    assert complete_assignment(incomplete) == offered


def test_every_value_that_is_offered_is_taken() -> None:
    offered = [(field, word) for field in SETTABLE for word in choices(field)]
    assert ("filter_loss.form", "exact") in offered
    for field, word in offered:
        typed_value(field, parse(word, field), "a test")


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["--set", "loss", "="], ["logistic", "softmax"]),
        (["--set", "loss", "=", "so"], ["softmax"]),
        (["--set", "loss", "=", "softmax", "--set", "variant", "=", "ord"], ["ordinary"]),
        (["--set", "loss", "=", "softmax", "--set", "model.inp"], ["model.input_size="]),
    ],
)
def test_bash_which_cuts_words_at_equals_signs_gets_values_too(words: list[str], offered: list[str]) -> None:
    line = ["orch", "sweep", *words]
    asked = {"_ORCH_COMPLETE": "complete_bash", "COMP_WORDS": "\n".join(line), "COMP_CWORD": str(len(line) - 1)}
    command = "import sys; from orchestrator.cli.main import main; sys.argv = ['orch']; main()"
    found = subprocess.run(
        [sys.executable, "-c", command], env=os.environ | asked, capture_output=True, text=True, check=False
    )
    assert (found.stdout.splitlines(), found.stderr) == (offered, "")


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("typed", "told"), [("train.epo", ["compopt -o nospace", "train.epochs="]), ("loss=so", ["loss=softmax"])]
)
def test_bash_sets_no_space_between_a_field_and_its_value(typed: str, told: list[str], tmp_path: Path) -> None:
    program = tmp_path / "orch"
    program.write_text(f"#!{sys.executable}\nfrom orchestrator.cli.main import main\nmain()\n")
    program.chmod(0o755)
    names = {"complete_func": "_orch_completion", "autocomplete_var": "_ORCH_COMPLETE", "prog_name": "orch"}
    script = f"""
        compopt() {{ echo "compopt $@"; }}
        {BASH % names}
        COMP_WORDS=(orch sweep --set {typed}); COMP_CWORD=3
        _orch_completion {program}
        echo "${{COMPREPLY[0]}}"
    """
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout.splitlines(), done.stderr) == (told, "")


def test_what_is_shown_beside_a_word_stays_on_its_line() -> None:
    title = "voc-cat lite:efficientnet_lite0@_blocks.15 interpretable (weight 0.01, schedule constant, new layer he)"
    narrow = {"_ORCH_COMPLETE": "complete_fish", "COLUMNS": "40"}
    answer_in_lines(narrow)
    code = f"from typer._completion_classes import _sanitize_help_text as it; print(it({title!r}), end='')"
    assert subprocess.check_output([sys.executable, "-c", code], env=os.environ | narrow, text=True) == title
    unasked = {"COLUMNS": "40"}
    answer_in_lines(unasked)
    assert unasked == {"COLUMNS": "40"}
