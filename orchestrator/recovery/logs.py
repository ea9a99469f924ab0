"""Finds and reads the logs of a job's attempts: files on this machine, or the copies in the job's run."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from orchestrator.ledger import store
from orchestrator.ledger.records import JobRecord
from orchestrator.settings import Settings
from schemas.errors import SpecError, StoreError
from workers.tracking.job_log import LOG_FOLDER, log_path

if TYPE_CHECKING:
    from mlflow import MlflowClient

POLL_SECONDS = 0.5
LAST_LINES = 12
"""Default number of lines that `LogText.last` returns."""
_UTF8 = codecs.getincrementaldecoder("utf-8")


@dataclass(frozen=True)
class LogText:
    """The log of one attempt."""

    attempt: int
    attempts: tuple[int, ...]
    """All attempts that have a log."""
    path: str
    """Path of the file, or of the artifact in the run."""
    text: str

    def last(self, lines: int = LAST_LINES) -> str:
        """Return the last lines of the log."""
        return "\n".join(self.text.rstrip().splitlines()[-lines:])


def attempts_on_disk(settings: Settings, key: str) -> list[int]:
    """Return the attempts of a job that have a log on this machine, in order."""
    found = [re.fullmatch(r"attempt-(\d+)\.log", path.name) for path in (settings.log_dir / key).glob("*.log")]
    return sorted(int(match[1]) for match in found if match)


def read_log(settings: Settings, job: JobRecord, attempt: int | None = None) -> LogText:
    """Read the log of one attempt.

    Args:
        settings: where logs and the store are.
        job: the job.
        attempt: number of the attempt; None means the last one that has a log.

    Raises:
        SpecError: no such log; the message lists those that exist.
        StoreError: the log cannot be read.
    """
    key = job.key
    here = attempts_on_disk(settings, key)
    # The log of an attempt on another machine is only in the run.
    client = store.open_client(settings) if (attempt or job.attempt) not in here else None
    in_run = _attempts_in_run(client, settings, job.run_id) if client else []
    found = tuple(sorted({*here, *in_run}))
    if not found:
        raise SpecError(f"{job.title} ({key}) has no log. `orch show {key}` shows its state.")
    wanted = attempt or found[-1]
    if wanted not in found:
        raise SpecError(
            f"{job.title} ({key}) has no log of attempt {wanted}. Attempts with a log: {', '.join(map(str, found))}."
        )
    if client is not None and wanted not in here:
        return LogText(wanted, found, *_fetch(client, settings, job.run_id, wanted))
    path = log_path(settings.log_dir, key, wanted)
    return LogText(wanted, found, str(path), _read(path))


def _attempts_in_run(client: MlflowClient, settings: Settings, run_id: str) -> list[int]:
    with store.reaching(settings.store_uri):
        names = [file.path for file in client.list_artifacts(run_id, LOG_FOLDER)]
    found = [re.fullmatch(rf"{LOG_FOLDER}/attempt-(\d+)\.log", name) for name in names]
    return sorted(int(match[1]) for match in found if match)


def _fetch(client: MlflowClient, settings: Settings, run_id: str, attempt: int) -> tuple[str, str]:
    name = f"{LOG_FOLDER}/attempt-{attempt}.log"
    with store.reaching(settings.store_uri), TemporaryDirectory() as folder:
        text = _read(Path(client.download_artifacts(run_id, name, folder)))
    return f"{name} of run {run_id}", text


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise StoreError(
            f"The log {path} cannot be read ({error.strerror or error}). Correct its permissions."
        ) from error


def follow(
    settings: Settings, key: str, attempt: int | None, is_over: Callable[[], bool], sleep: Callable[[float], None]
) -> Iterator[str]:
    """Follow a log as it grows.

    Args:
        settings: where logs are.
        key: key of the job.
        attempt: the attempt to follow to its end; None follows all attempts from the latest one on.
        is_over: returns whether the job has ended.
        sleep: waits for a number of seconds.

    Yields:
        The new text, without splitting a character.
    """
    current, offset, decoder = attempt or max(attempts_on_disk(settings, key), default=1), 0, _UTF8("replace")
    while True:
        over = is_over()  # checked before reading, so that everything written before is read
        later = [number for number in attempts_on_disk(settings, key) if number > current]
        path = log_path(settings.log_dir, key, current)
        if path.exists():
            with path.open("rb") as file:
                file.seek(offset)
                new = file.read()
            offset += len(new)
            if text := decoder.decode(new):
                yield text
        if later and attempt is None:
            current, offset, decoder = later[0], 0, _UTF8("replace")
        elif over or later:
            return
        else:
            sleep(POLL_SECONDS)
