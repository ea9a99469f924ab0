"""Commands: what they print and their exit codes. Nothing here starts Ray."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer.main

from orchestrator.cli import console
from orchestrator.cli.main import app, main
from orchestrator.cli.options import SweepOptions
from orchestrator.execution.control import Controlled
from orchestrator.services import recovery, sweeps
from schemas.errors import StoreError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("DATA_ROOT", "PROFILE", "TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(f"ORCH_{name}", raising=False)
    monkeypatch.setenv("ORCH_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(list(words))
    return int(end.value.code or 0)


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert run(*words, "--json") == 0
    return json.loads(capsys.readouterr().out)


def command_of(words: list[str]) -> Any:
    command: Any = typer.main.get_command(app)
    for word in words:
        command = command.commands[word]
    return command


def commands() -> list[list[str]]:
    """Every command, in the order in which help lists them."""
    found: list[list[str]] = []

    def walk(group: Any, before: list[str]) -> None:
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                walk(command, [*before, name])
            elif not command.hidden:
                found.append([*before, name])

    walk(typer.main.get_command(app), [])
    return found


def test_plan_says_what_would_run_and_makes_no_folder(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    assert run("plan", "--grid", "smoke") == 0
    assert "sweep smoke-laptop: 8 jobs and 2 pre-training: 10 new" in capsys.readouterr().out
    assert not home.exists()


def test_plan_as_json_has_the_dag(capsys: pytest.CaptureFixture[str]) -> None:
    plan = answer(capsys, "plan", "--grid", "smoke", "--category", "cat", "--backbone", "alexnet,vgg16")
    jobs = {job["key"]: job for job in plan["jobs"]}
    assert plan["counts"] == {"new": 6}
    assert all(jobs[job["upstream"]]["is_pretraining"] for job in jobs.values() if job["upstream"])


def test_the_users_settings_choose_the_profile(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCH_PROFILE", "paper")
    assert answer(capsys, "plan", "--grid", "cub200", "--set", "data.images=generated", "--set",
                  "data.train_per_category=50", "--set", "data.test_per_category=50", "--set",
                  "data.negatives=other_categories")["profile"] == "paper"  # fmt: skip


def test_a_sweep_file_takes_overrides(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("grid: smoke\naxes:\n  category: [cat]\n  seed: [0, 1]\n")
    plan = answer(capsys, "plan", str(file), "--backbone", "alexnet", "--set", "train.epochs=3")
    assert plan["sweep"] == "mine"
    assert sum(not job["is_pretraining"] for job in plan["jobs"]) == 8  # ilsvrc and voc cats, two seeds, two variants


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["plan"], 2, "Name either a grid"),
        (["plan", "--grid", "smok"], 2, "Did you mean 'smoke'"),
        (["plan", "--grid", "smoke", "--profile", "desktop"], 2, "laptop, paper"),
        (["plan", "--grid", "smoke", "--backbone", "alexnet,vg16"], 2, "Did you mean 'vgg16'"),
        (["plan", "--grid", "smoke", "--variant", "both"], 2, "No variant is called 'both'. Valid: ordinary"),
        (["plan", "--grid", "smoke", "--dataset", "cub"], 2, "Did you mean 'cub200'"),
        (["report", "nix", "--format", "pdf"], 2, "No format is called 'pdf'. Valid: text, markdown"),
        (["figure", "nix", "--figure", "7"], 2, "No figure is called '7'. Valid: 4, 5, 6, all."),
        (["weights", "verify", "nix", "--backbone", "vgg61"], 2, "Did you mean 'vgg16'"),
        (["plan", "--grid", "smoke", "--set", "train.epoch=1"], 2, "Did you mean 'train.epochs'"),
        (["plan", "--grid", "smoke", "--category", ""], 2, "names nothing"),
        (["plan", "nix.yaml"], 2, "No sweep file at nix.yaml"),
        (["plan", "--grid", "smoke", "--set", "model.input_size=48"], 2, "too small for alexnet"),
        (["plan", "--grid", "smoke", "--set", "train.freeze_below=conv9"], 2, "not a convolution of alexnet. Did you"),
        (["plan", "--grid", "smoke", "--data-root", "/nix"], 3, "/nix is not a folder"),
        (["sweep", "--grid", "smoke", "--set", "data.images=photographs"], 3, "no data root"),
        (["plan", "--grid", "smoke", "--weights", "/nix.pt"], 3, "no weights '/nix.pt'"),
        (["sweep", "--grid", "smoke", "--workers", "9999"], 5, "9999 workers take"),
        (["status", "nix"], 4, "orch sweep --grid first"),
        (["resume", "nix"], 4, "No sweep is called 'nix'"),
        (["show", "nix"], 2, "No job fits 'nix'"),
        (["ui"], 4, "There is no store"),
        (["data", "show", "--category", "zbra"], 2, "Did you mean 'zebra'"),
        (["resume", "smok"], 4, "There is no sweep yet"),
        (["requeue", "nix"], 2, "`--failed`, `--cancelled`"),
        (["requeue", "nix", "--failed", "--reason", "oom"], 2, "No reason is called 'oom'"),
        (["logs", "x", "--follow", "--json"], 2, "Leave one of them out"),
        (["fsck"], 4, "There is no store"),
        (["gc", "--dry-run"], 4, "There is no store"),
        (["nix"], 2, ""),
    ],
)
def test_bad_input_is_one_line_and_its_own_exit_code(
    capsys: pytest.CaptureFixture[str], words: list[str], code: int, message: str
) -> None:
    assert run(*words) == code
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_a_home_that_cannot_be_written_is_said_before_any_work(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    home.write_text("a file")
    assert run("sweep", "--grid", "smoke") == 4
    assert "cannot be written" in capsys.readouterr().err


def test_a_defect_is_one_line_and_debug_shows_where(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(sweeps, "list_sweeps", broken)
    assert run("status") == 70
    assert (
        capsys.readouterr().err.strip()
        == "error: ZeroDivisionError: oh. This is a defect of orch; `--debug` shows where."
    )
    for words in (["status", "--debug"], ["--debug", "status"]):
        assert run(*words) == 70
        assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "kind", "code"),
    [
        (["plan", "--grid", "smok"], "SpecError", 2),
        (["plan", "--nix"], "NoSuchOption", 2),
        (["show"], "MissingParameter", 2),
        (["nix"], "UsageError", 2),
        (["weights", "verify", "nix"], "WeightsError", 3),
        (["status", "nix"], "StoreError", 4),
        (["sweep", "--grid", "smoke", "--workers", "9999"], "ResourceError", 5),
        (["logs", "x", "--follow"], "SpecError", 2),
    ],
)
def test_an_error_of_a_command_with_json_is_json_too(
    capsys: pytest.CaptureFixture[str], words: list[str], kind: str, code: int
) -> None:
    assert run(*words, "--json") == code
    shown = capsys.readouterr()
    error = json.loads(shown.out)["error"]
    assert (error["kind"], error["exit_code"]) == (kind, code)
    assert error["message"].split()[0] in shown.err
    assert run(*words) == code
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("words", [words for words in commands() if words[0] not in ("sweep", "data")], ids=" ".join)
def test_without_a_store_every_json_answer_is_one_document(
    capsys: pytest.CaptureFixture[str], words: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["nix" for one in command_of(words).params if one.required]
    code = run(*words, *arguments, "--json")
    found = json.loads(capsys.readouterr().out)
    assert (code == 0) is (isinstance(found, list) or "error" not in found)


def test_an_error_after_an_answer_adds_no_second_document(capsys: pytest.CaptureFixture[str]) -> None:
    console.begin()
    console.show(console.ErrorFacts(kind="an answer", message="", exit_code=0))
    console.show_error(console.ErrorJson(error=console.ErrorFacts(kind="k", message="m", exit_code=3)))
    assert json.loads(capsys.readouterr().out)["kind"] == "an answer"
    console.begin()
    console.show([], again=True)
    console.show_error(console.ErrorJson(error=console.ErrorFacts(kind="k", message="m", exit_code=3)))
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()][1]["error"]["kind"] == "k"


def test_json_has_null_for_what_is_not_finite(capsys: pytest.CaptureFixture[str]) -> None:
    console.show({"a": [float("nan"), float("inf"), 1.5]})
    assert json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(name)) == {
        "a": [None, None, 1.5]
    }


def test_ctrl_c_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sweeps, "list_sweeps", interrupted)
    assert run("status") == 130


def test_an_expected_error_keeps_its_own_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(*_: object) -> None:
        raise StoreError("no")

    monkeypatch.setattr(sweeps, "list_sweeps", unreadable)
    assert run("status") == StoreError.exit_code


def test_status_without_a_store_says_how_to_begin(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    assert run("status") == 0
    assert "orch sweep --grid first" in capsys.readouterr().out
    assert answer(capsys, "status") == []
    assert not home.exists()


def test_grid_list_names_every_grid(capsys: pytest.CaptureFixture[str]) -> None:
    assert [grid["name"] for grid in answer(capsys, "grid", "list")] == [
        "first", "paper", "all-categories", "ilsvrc-animal-part", "voc-part", "cub200", "paper-multi", "voc-part-multi",
        "ilsvrc-multi", "smoke",
    ]  # fmt: skip


def test_grid_list_says_what_the_profile_leaves_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = {grid["name"]: (grid["jobs"], grid["all_jobs"]) for grid in answer(capsys, "grid", "list")}
    assert (jobs["voc-part"], jobs["smoke"], jobs["paper"]) == ((12, 48), (8, 8), (90, 312))
    plan = answer(capsys, "plan", "--grid", "paper")
    assert sum(not job["is_pretraining"] for job in plan["jobs"]) == jobs["paper"][0]
    assert run("grid", "list") == 0
    shown = capsys.readouterr().out
    assert "12 of 48" in shown
    assert "profile laptop takes backbone alexnet; --backbone names others" in shown
    monkeypatch.setenv("ORCH_PROFILE", "paper")
    assert all(grid["jobs"] == grid["all_jobs"] for grid in answer(capsys, "grid", "list"))


def test_data_show_writes_a_picture(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"
    assert (
        run("data", "show", "--category", "cub200/bird", "--out", str(out), "--per-category", "2", "--size", "64") == 0
    )
    assert out.read_bytes().startswith(b"\x89PNG")
    assert "generated animals" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "typed", "offered"),
    [
        ("plan --grid", "sm", ["smoke"]),
        ("plan --profile", "", ["laptop", "paper"]),
        ("sweep --set", "train.ep", ["train.epochs="]),
        ("table --by", "variant,train.ep", ["variant,train.epochs"]),
        ("plan --backbone", "vgg1", ["vgg16"]),
        ("sweep --backbone", "alexnet,vgg1", ["alexnet,vgg16"]),
        ("sweep --variant", "o", ["ordinary"]),
        ("sweep --dataset", "v", ["voc_part"]),
        ("sweep --category", "voc-c", ["voc-cat", "voc-cow"]),
        ("requeue --reason", "node", ["node_lost"]),
        ("report --format", "m", ["markdown"]),
        ("figure --figure", "", ["4", "5", "6", "all"]),
        ("weights import --backbone", "vgg_", ["vgg_m", "vgg_s"]),
    ],
)
def test_the_shell_completes_names(option: str, typed: str, offered: list[str]) -> None:
    *words, flag = option.split()
    command = command_of(words)
    (parameter,) = [one for one in command.params if flag in one.opts]
    context = command.make_context("orch", [], resilient_parsing=True)
    assert [item.value for item in parameter.shell_complete(context, typed)] == offered


@pytest.mark.parametrize("words", [[], *commands()], ids=" ".join)
def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert run(*words, "--help") == 0
    shown = capsys.readouterr().out
    assert "Usage" in shown
    assert "--debug" in shown


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_has_an_example_json_and_a_word_on_each_option(words: list[str]) -> None:
    command = command_of(words)
    assert re.search(rf"^ *orch {' '.join(words)}\b", command.help, re.MULTILINE)
    assert "--json" in [name for option in command.params for name in option.opts]
    assert [option.name for option in command.params if not option.help and option.name != "help"] == []


def test_help_lists_what_a_person_needs_first_and_forgets_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    listed = [line.split()[1] for line in capsys.readouterr().out.splitlines() if re.match(r"│ [a-z]", line)]
    assert set(listed) == {words[0] for words in commands()}
    assert listed[:4] == ["plan", "sweep", "resume", "status"]
    assert listed.index("why") > listed.index("status")
    assert listed.index("gc") < listed.index("grid")


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"orch {version('orch')}\n"


def test_plan_and_sweep_share_their_options() -> None:
    plan, sweep = (command_of([word]).params for word in ("plan", "sweep"))
    shared = [field.name for field in fields(SweepOptions)]
    for options in (plan, sweep):
        assert [option.name for option in options][: len(shared)] == shared
    assert [option.help for option in plan][: len(shared)] == [option.help for option in sweep][: len(shared)]


@pytest.mark.parametrize(
    ("address", "command"), [("local", "orch resume mine"), ("http://head:8265", "orch resume mine --detach")]
)
def test_what_to_type_next_fits_the_machine(
    address: str, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paused = Controlled("mine", "pause", None, None, heard=True)
    monkeypatch.setenv("ORCH_RAY_ADDRESS", address)
    monkeypatch.setattr(recovery, "pause", lambda settings, name: paused)
    assert run("pause", "mine") == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"Go on with: {command}"
