"""The `orch` program: its command groups, the options of every command, and how an error ends the process."""

from __future__ import annotations

import os
import sys
import traceback
from importlib.metadata import version
from typing import Annotated, Any, cast

import typer
from typer.rich_utils import rich_format_error

from orchestrator import settings as env
from orchestrator.cli import config, console, data, doctor, figures, models, recovery, streams, sweeps, tables, weights
from orchestrator.cli.completion import answer_in_lines, join_assignments
from orchestrator.cli.console import ErrorFacts, ErrorJson
from orchestrator.cli.shell_scripts import use_own_scripts
from schemas.errors import Interrupted, OrchError
from workers.loopback import bypass_proxies_for_loopback
from workers.secret_files import read_secret_files

DEFECT = 70
"""Exit code of an error that no one expected."""
GROUPS = "Inputs of a sweep"

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Train interpretable and ordinary CNNs in parallel, and measure how interpretable their filters are.\n\n"
    "A first sweep, which shows the effect in about three minutes:\n\n"
    "orch sweep --grid first\n\n"
    "Environment variables set the defaults: ORCH_HOME, ORCH_DATA_ROOT, ORCH_PROFILE, ORCH_TRACKING_URI, "
    "ORCH_RAY_ADDRESS, ORCH_OBJECT_STORE and others. `orch config show` lists them all.\n\n"
    "Exit codes: 0 all jobs done, 1 some jobs failed, 2 bad usage or spec, 3 bad data or weights, 4 store error, "
    "5 too few resources or no cluster, 6 another process drives the sweep, 70 defect of orch, 130 interrupted.",
)
app.add_typer(sweeps.app)
app.add_typer(tables.app)
app.add_typer(recovery.app)
app.add_typer(doctor.app)
app.add_typer(figures.app)
app.add_typer(config.app, name="config", rich_help_panel=recovery.PANEL)
app.add_typer(sweeps.grids_app, name="grid", rich_help_panel=GROUPS)
app.add_typer(data.app, name="data", rich_help_panel=GROUPS)
app.add_typer(weights.app, name="weights", rich_help_panel=GROUPS)
app.add_typer(models.app, name="model", rich_help_panel=figures.PANEL)


def _note_on_every_help(group: typer.Typer) -> None:
    """Name the option that all commands take, because the help of a command lists only its own."""
    for command in group.registered_commands:
        command.epilog = "With --debug, anywhere on the line, an error comes with its traceback."
    for inner in group.registered_groups:
        if inner.typer_instance is not None:
            _note_on_every_help(inner.typer_instance)


_note_on_every_help(app)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        print(f"orch {version('orch')}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Print a traceback with an error. Accepted anywhere on the line.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Declare the options of the program itself. `main` reads `--debug`, because errors end there."""
    for warning in env.misspelt(os.environ):
        typer.secho(f"warning: {warning}", fg=typer.colors.YELLOW, err=True)


def main(arguments: list[str] | None = None) -> None:
    """Run one command and exit. The one place where an expected error becomes a message and an exit code.

    Args:
        arguments: the command line without the program's name. Default: that of the process.
    """
    typed = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in typed
    streams.endure()
    bypass_proxies_for_loopback()
    console.begin()
    answer_in_lines(os.environ)
    join_assignments(os.environ)
    use_own_scripts(typed)
    code = _run([word for word in typed if word != "--debug"], debug, json="--json" in typed)
    if why := streams.loss("stdout"):
        typer.echo(f"warning: standard output is incomplete, because it cannot be written: {why}", err=True)
    raise SystemExit(code)


def _run(words: list[str], debug: bool, json: bool) -> int:
    """Run a command and print the error that ends it.

    Returns:
        The exit code.
    """
    try:
        read_secret_files()
        code = int(app(words, standalone_mode=False) or 0)
        if code == Interrupted.exit_code:
            _show(ErrorFacts(kind="Interrupted", message="interrupted by Ctrl-C", exit_code=code), json)
        return code
    except typer.TyperException as error:  # a command line that cannot be parsed
        rich_format_error(cast("Any", error))
        kind, message, code = type(error).__name__, error.format_message(), error.exit_code
        return _show(ErrorFacts(kind=kind, message=message, exit_code=code), json)
    except typer.Abort:
        return _fail("Abort", "aborted", 1, debug, json)
    except OrchError as error:
        return _fail(type(error).__name__, str(error), error.exit_code, debug, json)
    except Exception as error:  # noqa: BLE001 - the boundary of the process
        message = f"{type(error).__name__}: {error}. This is a defect of orch; `--debug` shows where."
        return _fail(type(error).__name__, message, DEFECT, debug, json)


def _fail(kind: str, message: str, code: int, debug: bool, json: bool) -> int:
    if debug:
        traceback.print_exc()
    typer.secho(f"error: {message}", fg=typer.colors.RED, err=True)
    return _show(ErrorFacts(kind=kind, message=message, exit_code=code), json)


def _show(facts: ErrorFacts, json: bool) -> int:
    if json:
        console.show_error(ErrorJson(error=facts))
    return facts.exit_code


if __name__ == "__main__":
    main()
