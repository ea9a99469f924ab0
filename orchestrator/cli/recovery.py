"""The commands that find out why jobs stopped, put jobs back, stop sweeps and repair the store."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from orchestrator import settings as env
from orchestrator.cli import console
from orchestrator.cli.options import Backbone, Category, Job, Json, Reason, Sweep, Target, number, words
from orchestrator.cli.text import recovery as text
from orchestrator.execution import selection
from orchestrator.services import recovery as service
from schemas.errors import SpecError

PANEL = "Recovery"

app = typer.Typer()


@app.command(rich_help_panel=PANEL)
def why(target: Target, json: Json = False) -> None:
    """Show why jobs have not succeeded: the causes, the end of a log, and the next command to run.

    orch why smoke-laptop
    """
    settings = env.Settings()
    found = service.why(settings, target)
    resume = settings.resume_command(found.sweep)
    console.show(text.WhyJson.of_why(found, resume) if json else text.why_text(found, resume))


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
    lines: Annotated[
        int | None,
        number("--lines", "-n", least=1, help="Print only the last lines. Default: all.", show_default=False),
    ] = None,
    json: Json = False,
) -> None:
    """Print a job's log: phases, epochs, warnings and tracebacks. A running job on another machine is ten seconds late.

    orch logs "voc-cat alexnet interpretable" --follow -n 20
    """
    if follow and json:
        raise SpecError("`--follow` prints an open-ended log, which `--json` cannot. Leave one of them out.")
    if follow:
        told = partial(typer.echo, err=True)
        for part in service.follow_log(env.Settings(), job, attempt, say=told, lines=lines):
            console.show_plain(part)
            if not console.is_read():
                return
        return
    record, log = service.job_log(env.Settings(), job, attempt, lines)
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
    which = selection.parse_which(
        failed=failed, cancelled=cancelled, reasons=words(reason), categories=words(category), backbones=words(backbone)
    )
    settings = env.Settings()
    done = service.requeue(settings, sweep, which, from_scratch=from_scratch)
    console.show(text.RequeuedJson.of(done) if json else text.requeue_text(done, settings.resume_command(sweep)))


@app.command(rich_help_panel=PANEL)
def pause(sweep: Sweep, json: Json = False) -> None:
    """Stop a sweep: running jobs save a checkpoint and end. `orch resume` continues it.

    orch pause smoke-laptop
    """
    settings = env.Settings()
    done = service.pause(settings, sweep)
    console.show(text.ControlJson.of(done) if json else text.control_text(done, settings.resume_command(sweep)))


@app.command(rich_help_panel=PANEL)
def cancel(target: Target, json: Json = False) -> None:
    """Cancel a sweep or one job: running jobs save a checkpoint and end, waiting jobs do not start.

    orch cancel smoke-laptop
    orch cancel "voc-cat alexnet interpretable"
    """
    settings = env.Settings()
    done = service.cancel(settings, target)
    console.show(text.ControlJson.of(done) if json else text.control_text(done, settings.resume_command(done.sweep)))


@app.command(rich_help_panel=PANEL)
def fsck(
    repair: Annotated[bool, typer.Option("--repair", help="Repair what can be repaired.")] = False, json: Json = False
) -> None:
    """Check that runs, results, checkpoints and locks agree. Anything left to repair ends with code 4.

    orch fsck --repair
    """
    settings = env.Settings()
    found = service.fsck(settings, repair=repair)
    resume = settings.resume_command
    console.show(text.FsckJson.of_result(found) if json else text.fsck_text(found, resume))
    service.raise_if_unsound(found)


@app.command(rich_help_panel=PANEL)
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the files without deleting them.")] = False,
    json: Json = False,
) -> None:
    """Delete unused files: of unknown jobs, second copies of final checkpoints, outdated images, dead Rays.

    orch gc --dry-run
    """
    waste = service.gc(env.Settings(), dry_run=dry_run)
    console.show(text.GarbageJson.of_waste(waste, dry_run) if json else text.gc_text(waste, dry_run))
