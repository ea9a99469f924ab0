"""Documentation is true: its commands, links and paths exist, and its lines fit on a screen."""

from __future__ import annotations

import html
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer.core
import typer.main

from interp_model.metrics.location_instability import location_instability
from orchestrator.cli.main import app
from orchestrator.planning.request import SweepRequest, define
from orchestrator.planning.sweep_file import read_sweep_file
from schemas import errors

ROOT = Path(__file__).parents[1]
USER_PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "benchmarks/README.md"]
PAGES = [*USER_PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
COLUMNS = 100
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(!?\[[^\]]*\])\(([^)\s]+)\)")
FOLDERS = (
    "orch",
    "schemas",
    "interp_model",
    "workers",
    "orchestrator",
    "tests",
    "docs",
    "examples",
    "benchmarks",
    r"\.ci",
)
IN_REPOSITORY = re.compile(rf"`((?:{'|'.join(FOLDERS)})/[^`]*)`")
PROGRAM: Any = typer.main.get_command(app)
UsageError = typer.BadParameter.__mro__[1]
"""The base class of the errors of Click's parser; Typer may carry its own copy of Click."""


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose_of(page: Path) -> str:
    """Return the text outside blocks of code; those leave empty lines, so that numbers of lines stay."""
    return FENCE.sub(lambda block: "\n" * block[0].count("\n"), page.read_text())


class Typed(NamedTuple):
    """One `orch` command of a page."""

    page: str
    text: str
    is_whole: bool
    """From a block of code, where it could be run as it is; a mention in prose may leave out arguments."""


def commands() -> Iterator[Typed]:
    """Find every command of README, docs and benchmarks; the reference in docs/cli.md has the examples of `--help`."""
    for page in USER_PAGES:
        for _, code in FENCE.findall(page.read_text()):
            yield from (
                Typed(page_id(page), line.partition(" # ")[0].strip(), True)
                for line in code.splitlines()
                if line.startswith("orch ")
            )
        for text in re.findall(r"`(orch(?: [^`]+)?)`", prose_of(page).replace("\n", " ")):
            yield Typed(page_id(page), text.removesuffix(" ..."), False)


COMMANDS = list(dict.fromkeys(commands()))


def check_command(text: str, *, is_whole: bool) -> None:
    """Let Click parse a command without running it.

    Raises:
        UsageError: a command or option does not exist, or a value does not fit.
    """
    command = PROGRAM
    context = command.context_class(command, info_name="orch")
    words = [word for word in shlex.split(text)[1:] if word != "--debug"]
    while isinstance(command, typer.core.TyperGroup) and words and not words[0].startswith("-"):
        _, command, words = command.resolve_command(context, words)
        context = command.context_class(command, info_name=command.name, parent=context)
    if is_whole:
        with suppress(typer.Exit):  # of an option such as --version, which prints and ends
            command.make_context(command.name, words, parent=context.parent)
    else:
        command.make_parser(context).parse_args(words)


def test_the_pages_have_many_commands() -> None:
    assert len(COMMANDS) > 100


@pytest.mark.parametrize("typed", COMMANDS, ids=lambda typed: f"{typed.page}: {typed.text}")
def test_every_command_and_option_exists(typed: Typed) -> None:
    check_command(typed.text, is_whole=typed.is_whole)


@pytest.mark.parametrize(
    "text", ["orch sweeep --grid smoke", "orch sweep --gird smoke", "orch show", "orch sweep --workers many"]
)
def test_a_command_that_does_not_exist_is_noticed(text: str) -> None:
    with pytest.raises(UsageError):
        check_command(text, is_whole=True)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for _, target in LINK.findall(prose_of(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors_of(file), target


def anchors_of(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub names them."""
    headings = re.findall(r"^#+ (.+)$", prose_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_path_in_backticks_exists(page: Path) -> None:
    for name in IN_REPOSITORY.findall(prose_of(page)):
        path = name.partition(":")[0]
        if page.name != "CONTRIBUTING.md" or path not in new_files():
            assert (ROOT / path).exists(), name


def new_files() -> set[str]:
    """Return the files that the recipes of CONTRIBUTING.md create."""
    return set(re.findall(r"^```python file=(\S+)$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_lines_of_prose_are_short(page: Path) -> None:
    for number, line in enumerate(prose_of(page).splitlines(), start=1):
        if not line.startswith(("|", "![")):
            assert len(LINK.sub(r"\1", line)) <= COLUMNS, f"{page_id(page)}:{number} {line}"


def test_the_reference_of_the_commands_is_up_to_date() -> None:
    page = (ROOT / "docs/cli.md").read_text()
    assert runpy.run_path(str(ROOT / "docs/cli_reference.py"))["with_reference"](page) == page, "Run `make docs`."
    assert "\n### orch data import\n" in page


def test_the_page_of_commands_lists_every_exit_code() -> None:
    codes = {error.exit_code for error in vars(errors).values() if isinstance(error, type)}
    rows = re.findall(r"^\| (\d+) \|", (ROOT / "docs/cli.md").read_text(), re.MULTILINE)
    assert [int(code) for code in rows] == sorted({0, *codes})


def test_the_sweep_file_of_the_documentation_is_valid(tmp_path: Path) -> None:
    (text,) = [code for info, code in FENCE.findall((ROOT / "docs/configuration.md").read_text()) if info == "yaml"]
    file = tmp_path / "my-sweep.yaml"
    file.write_text(text)
    assert define(SweepRequest(sweep=read_sweep_file(file))).name == "my-sweep"


def test_the_version_is_the_same_everywhere() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    newest = re.search(r"^## ([\d.]+) — \d{4}-\d{2}-\d{2}$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == version


@pytest.mark.slow
def test_api_pages_are_built_without_warnings(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error::UserWarning", "docs/api.py", str(tmp_path), "schemas", "interp_model"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    page = (tmp_path / "interp_model/metrics/location_instability.html").read_text()
    assert html.escape(location_instability.__doc__.splitlines()[0]) in page
