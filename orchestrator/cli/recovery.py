"""The commands that keep sweeps going: why, logs, requeue, pause, cancel, fsck and gc."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli import console
from orchestrator.cli.options import Backbone, Category, Job, Json, Sweep, Target, complete_reason, words
from orchestrator.cli.text import recovery as text
from orchestrator.execution.selection import REASONS, parse_which
from orchestrator.services import recovery as service
from orchestrator.settings import Settings
from schemas.errors import SpecError

PANEL = "Nothing lost"

app = typer.Typer()


@app.command(rich_help_panel=PANEL)
def why(target: Target, json: Json = False) -> None:
    """Show why jobs did not succeed, grouped by cause, with the end of a log and what to type next.

    orch why smoke-laptop
    """
    found = service.why(Settings(), target)
    console.show(text.why_json(found) if json else text.why_text(found))


@app.command(rich_help_panel=PANEL)
def logs(
    job: Job,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the job has ended, or Ctrl-C.")] = False,
    attempt: Annotated[int | None, typer.Option(min=1, help="Else the last one.", show_default=False)] = None,
    json: Json = False,
) -> None:
    """Print what a job wrote while it ran: phases, epochs, warnings, the traceback.

    orch logs "voc-cat alexnet interpretable" --follow
    """
    if follow and json:
        raise SpecError("`--json` prints one answer, and `--follow` does not end with one. Leave one of them out.")
    if follow:
        for part in service.follow_log(Settings(), job, attempt, say=lambda line: typer.echo(line, err=True)):
            print(part, end="", flush=True)
        return
    record, log = service.job_log(Settings(), job, attempt)
    if json:
        console.show(text.log_json(record, log))
    else:
        if attempt is None and log.attempt != record.attempt:
            typer.echo(f"Attempt {record.attempt} has left no log; this is attempt {log.attempt}'s.", err=True)
        print(log.text, end="")


@app.command(rich_help_panel=PANEL)
def requeue(
    sweep: Sweep,
    failed: Annotated[bool, typer.Option("--failed", help="Put failed jobs back.")] = False,
    cancelled: Annotated[bool, typer.Option("--cancelled", help="Put cancelled jobs back.")] = False,
    reason: Annotated[
        list[str] | None,
        typer.Option(help=f"Only those that stopped so: {', '.join(REASONS)}.", autocompletion=complete_reason),
    ] = None,
    category: Category = None, backbone: Backbone = None,
    from_scratch: Annotated[bool, typer.Option("--from-scratch", help="Drop their checkpoints.")] = False,
    json: Json = False,
) -> None:  # fmt: skip
    """Put failed or cancelled jobs back. Runs nothing: `orch resume` does.

    orch requeue voc-part-laptop --failed --reason out_of_memory --backbone vgg16
    """
    which = parse_which(failed=failed, cancelled=cancelled, reasons=words(reason), categories=words(category),
                        backbones=words(backbone))  # fmt: skip
    done = service.requeue(Settings(), sweep, which, from_scratch=from_scratch)
    console.show(text.requeue_json(done) if json else text.requeue_text(done))


@app.command(rich_help_panel=PANEL)
def pause(sweep: Sweep, json: Json = False) -> None:
    """Let a sweep's running jobs end at a checkpoint, and start no more. `orch resume` goes on.

    orch pause smoke-laptop
    """
    done = service.pause(Settings(), sweep)
    console.show(text.control_json(done) if json else text.control_text(done))


@app.command(rich_help_panel=PANEL)
def cancel(target: Target, json: Json = False) -> None:
    """Cancel a sweep, or one job: what runs ends at a checkpoint, what waits is not begun.

    orch cancel smoke-laptop
    orch cancel "voc-cat alexnet interpretable"
    """
    done = service.cancel(Settings(), target)
    console.show(text.control_json(done) if json else text.control_text(done))


@app.command(rich_help_panel=PANEL)
def fsck(
    repair: Annotated[bool, typer.Option("--repair", help="Repair what can be repaired.")] = False, json: Json = False
) -> None:
    """Check that runs, results, checkpoints and locks agree. Exit code 4 where they do not.

    orch fsck --repair
    """
    report = service.fsck(Settings(), repair=repair)
    console.show(text.fsck_json(report) if json else text.fsck_text(report))
    service.raise_if_unsound(report)


@app.command(rich_help_panel=PANEL)
def gc(dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show it.")] = False, json: Json = False) -> None:
    """Delete what nothing reads any more: checkpoints and logs of unknown jobs, old prepared images, dead Rays.

    orch gc --dry-run
    """
    waste = service.gc(Settings(), dry_run=dry_run)
    console.show(text.gc_json(waste, dry_run) if json else text.gc_text(waste, dry_run))
