"""Finds and reads the logs of a job's attempts: on this machine's disk, else the copies that the job's run keeps."""

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

LOOK_SECONDS = 0.5
LAST_LINES = 12
_UTF8 = codecs.getincrementaldecoder("utf-8")


@dataclass(frozen=True)
class LogText:
    attempt: int
    attempts: tuple[int, ...]
    """Those that left a log."""
    path: str
    text: str

    def last(self, lines: int = LAST_LINES) -> str:
        return "\n".join(self.text.rstrip().splitlines()[-lines:])


def attempts_on_disk(settings: Settings, key: str) -> list[int]:
    found = [re.fullmatch(r"attempt-(\d+)\.log", path.name) for path in (settings.log_dir / key).glob("*.log")]
    return sorted(int(match[1]) for match in found if match)


def read_log(settings: Settings, job: JobRecord, attempt: int | None = None) -> LogText:
    """The log of one attempt; without a number, of the last that left one.

    Raises:
        SpecError: there is no such log; the message says which there are.
    """
    key = job.key
    here = attempts_on_disk(settings, key)
    # An attempt that ran on another machine has left its log in the run alone.
    client = store.open_client(settings) if (attempt or job.attempt) not in here else None
    kept = _attempts_kept(client, settings, job.run_id) if client else []
    there = tuple(sorted({*here, *kept}))
    if not there:
        raise SpecError(f"{job.title} ({key}) has left no log. `orch show {key}` says how it stands.")
    wanted = attempt or there[-1]
    if wanted not in there:
        raise SpecError(f"{job.title} ({key}) has no log of attempt {wanted}. There are: {', '.join(map(str, there))}.")
    if client is not None and wanted not in here:
        return LogText(wanted, there, *_fetch(client, settings, job.run_id, wanted))
    path = log_path(settings.log_dir, key, wanted)
    return LogText(wanted, there, str(path), _read(path))


def _attempts_kept(client: MlflowClient, settings: Settings, run_id: str) -> list[int]:
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
            f"The log {path} cannot be read ({error.strerror or error}). Repair its permissions."
        ) from error


def follow(
    settings: Settings, key: str, attempt: int | None, is_over: Callable[[], bool], sleep: Callable[[float], None]
) -> Iterator[str]:
    """The log's text as it grows, on to later attempts unless one was named, until that or the job is over."""
    current, offset, decoder = attempt or max(attempts_on_disk(settings, key), default=1), 0, _UTF8("replace")
    while True:
        over = is_over()  # this and what comes later are asked first, so that all that was written before is read
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
            sleep(LOOK_SECONDS)
