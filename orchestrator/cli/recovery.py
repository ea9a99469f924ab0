"""The commands that find out why jobs stopped, put jobs back, stop sweeps and repair the store."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli import console
from orchestrator.cli.options import Backbone, Category, Job, Json, Reason, Sweep, Target, number, words
from orchestrator.cli.text import recovery as text
from orchestrator.execution.selection import parse_which
from orchestrator.services import recovery as service
from orchestrator.settings import Settings
from schemas.errors import SpecError

PANEL = "Recovery"

app = typer.Typer()


@app.command(rich_help_panel=PANEL)
def why(target: Target, json: Json = False) -> None:
    """Show why jobs have not succeeded: the causes, the end of a log, and the next command to run.

    orch why smoke-laptop
    """
    found = service.why(Settings(), target)
    console.show(text.WhyJson.of_why(found) if json else text.why_text(found))


@app.command(rich_help_panel=PANEL)
def logs(
    job: Job,
    follow: Annotated[
        bool, typer.Option("--follow", help="Print new lines as they come, until the job ends or Ctrl-C.")
    ] = False,
    attempt: Annotated[
        int | None,
        number(least=1, help="Number of the attempt. Default: the last one.", show_default=False),
    ] = None,
    json: Json = False,
) -> None:
    """Print a job's log: phases, epochs, warnings and tracebacks.

    orch logs "voc-cat alexnet interpretable" --follow
    """
    if follow and json:
        raise SpecError("`--follow` prints an open-ended log, which `--json` cannot. Leave one of them out.")
    if follow:
        for part in service.follow_log(Settings(), job, attempt, say=lambda line: typer.echo(line, err=True)):
            console.show_plain(part)
            if not console.is_read():
                return
        return
    record, log = service.job_log(Settings(), job, attempt)
    if json:
        console.show(text.LogJson.of_log(record, log))
    else:
        if attempt is None and log.attempt != record.attempt:
            typer.echo(f"Attempt {record.attempt} left no log; this is the log of attempt {log.attempt}.", err=True)
        console.show_plain(log.text)


@app.command(rich_help_panel=PANEL)
def requeue(
    sweep: Sweep,
    failed: Annotated[bool, typer.Option("--failed", help="Requeue failed jobs.")] = False,
    cancelled: Annotated[bool, typer.Option("--cancelled", help="Requeue cancelled jobs.")] = False,
    reason: Reason = None,
    category: Category = None,
    backbone: Backbone = None,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Delete the jobs' checkpoints, so that training starts anew.")
    ] = False,
    json: Json = False,
) -> None:
    """Put failed or cancelled jobs back in the queue. `orch resume` then runs them.

    orch requeue voc-part-laptop --failed --reason out_of_memory --backbone vgg16
    """
    which = parse_which(failed=failed, cancelled=cancelled, reasons=words(reason), categories=words(category),
                        backbones=words(backbone))  # fmt: skip
    done = service.requeue(Settings(), sweep, which, from_scratch=from_scratch)
    console.show(text.RequeuedJson.of(done) if json else text.requeue_text(done))


@app.command(rich_help_panel=PANEL)
def pause(sweep: Sweep, json: Json = False) -> None:
    """Stop a sweep: running jobs save a checkpoint and end. `orch resume` continues it.

    orch pause smoke-laptop
    """
    done = service.pause(Settings(), sweep)
    console.show(text.ControlJson.of(done) if json else text.control_text(done))


@app.command(rich_help_panel=PANEL)
def cancel(target: Target, json: Json = False) -> None:
    """Cancel a sweep or one job: running jobs save a checkpoint and end, waiting jobs do not start.

    orch cancel smoke-laptop
    orch cancel "voc-cat alexnet interpretable"
    """
    done = service.cancel(Settings(), target)
    console.show(text.ControlJson.of(done) if json else text.control_text(done))


@app.command(rich_help_panel=PANEL)
def fsck(
    repair: Annotated[bool, typer.Option("--repair", help="Repair what can be repaired.")] = False, json: Json = False
) -> None:
    """Check that runs, results, checkpoints and locks agree. Anything left to repair ends with code 4.

    orch fsck --repair
    """
    found = service.fsck(Settings(), repair=repair)
    console.show(text.FsckJson.of_result(found) if json else text.fsck_text(found))
    service.raise_if_unsound(found)


@app.command(rich_help_panel=PANEL)
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the files without deleting them.")] = False,
    json: Json = False,
) -> None:
    """Delete unused files: checkpoints and logs of unknown jobs, outdated prepared images, remains of dead Rays.

    orch gc --dry-run
    """
    waste = service.gc(Settings(), dry_run=dry_run)
    console.show(text.GarbageJson.of_waste(waste, dry_run) if json else text.gc_text(waste, dry_run))
