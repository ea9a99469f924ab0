"""Which final checkpoints are stored a second time, beside their job's run, so that `orch gc` can delete them.

Earlier versions kept two copies of each, a worker that is killed at its end can leave one, and what is read from a run
behind a server is fetched to this machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from orchestrator.ledger.artifacts import fetch_checkpoint
from orchestrator.ledger.records import JobRun
from orchestrator.recovery.garbage import Waste
from orchestrator.recovery.rules import primary_runs
from orchestrator.settings import Settings
from schemas.lifecycle import JobState
from schemas.results import CheckpointPointer
from workers.checkpoints.published import is_whole

if TYPE_CHECKING:
    from orchestrator.ledger.home_client import HomeClient


def spare_checkpoints(settings: Settings, client: HomeClient, runs: Iterable[JobRun]) -> Iterator[Waste]:
    """Yield the checkpoints of succeeded jobs on this machine whose run has the final one whole.

    Args:
        settings: where the checkpoints are.
        client: a client of the store.
        runs: the runs of all jobs.

    Raises:
        StoreError: the store cannot be read.
        OSError: a file cannot be read.
    """
    for run in primary_runs(runs):
        record = run.record
        final = record.result.checkpoint if record is not None and record.result is not None else None
        if record is None or record.state is not JobState.SUCCEEDED or final is None:
            continue
        found = sorted((settings.checkpoint_dir / run.key).glob("*/*.pt"))
        if found and _run_has(settings, client, run.run_id, final):
            yield from (Waste("checkpoint that its run has too", path, path.stat().st_size, run.key) for path in found)


def _run_has(settings: Settings, client: HomeClient, run_id: str, final: CheckpointPointer) -> bool:
    with TemporaryDirectory(prefix="orch-") as folder:  # below the checkpoints, `--dry-run` may not write
        kept = fetch_checkpoint(settings, client, run_id, final, Path(folder))
        return kept is not None and is_whole(final.model_copy(update={"path": str(kept)}))
