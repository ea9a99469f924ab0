"""Finds and reads the logs of a job's attempts: files on this machine, or the copies in the job's run."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from orchestrator.ledger import store
from orchestrator.ledger.records import JobRecord
from orchestrator.settings import Settings
from schemas.errors import SpecError, StoreError, StoreUnreachable
from workers.tracking.job_log import LOG_FOLDER, log_path

if TYPE_CHECKING:
    from mlflow import MlflowClient

POLL_SECONDS, REMOTE_POLL_SECONDS = 0.5, 3.0
"""Pauses between two looks at a file of this machine, and at the copy in a run."""
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
    in_run = _copies_in_run(client, settings, job.run_id) if client else {}
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


def _copies_in_run(client: MlflowClient, settings: Settings, run_id: str) -> dict[int, int]:
    """Return the sizes of the logs in a job's run by attempt."""
    with store.reaching(settings.store_uri):
        files = client.list_artifacts(run_id, LOG_FOLDER)
    found = [(re.fullmatch(rf"{LOG_FOLDER}/attempt-(\d+)\.log", file.path), file.file_size) for file in files]
    return {int(match[1]): size or 0 for match, size in found if match}


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


@dataclass
class LogSource:
    """The logs of one job as they grow: files on this machine, else the copies that workers upload to its run."""

    settings: Settings
    job: JobRecord
    """The job as it was last seen: the copies are looked at only if its attempt has no file here."""
    _client: MlflowClient | None = None
    _copies: dict[int, int] = field(default_factory=dict)
    """Size of each copy by attempt."""

    def look(self) -> list[int]:
        """Return the attempts that have a log, in order.

        Raises:
            StoreUnreachable: the store does not answer now.
        """
        here = attempts_on_disk(self.settings, self.job.key)
        if self.settings.database is None and self.job.attempt not in here:
            self._client = self._client or store.open_client(self.settings)
            self._copies = _copies_in_run(self._client, self.settings, self.job.run_id)
        return sorted({*here, *self._copies})

    def read(self, attempt: int, offset: int) -> bytes:
        """Return what an attempt has written after so many bytes, as of the last `look`.

        Raises:
            StoreUnreachable: the store does not answer now.
        """
        path = log_path(self.settings.log_dir, self.job.key, attempt)
        if path.exists():
            with path.open("rb") as file:
                file.seek(offset)
                return file.read()
        if self._client is None or self._copies.get(attempt, 0) <= offset:
            return b""
        name = f"{LOG_FOLDER}/attempt-{attempt}.log"
        with store.reaching(self.settings.store_uri), TemporaryDirectory() as folder:
            content = Path(self._client.download_artifacts(self.job.run_id, name, folder)).read_bytes()
        return content[offset:]

    def pause(self, attempt: int | None) -> float:
        """Return the seconds to wait before the next look at the log of an attempt."""
        is_here = attempt is not None and log_path(self.settings.log_dir, self.job.key, attempt).exists()
        return POLL_SECONDS if is_here or self.settings.database is not None else REMOTE_POLL_SECONDS


def follow(
    source: LogSource,
    attempt: int | None,
    is_over: Callable[[], bool],
    sleep: Callable[[float], None],
    *,
    last: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[str]:
    """Follow a log as it grows.

    Args:
        source: the logs of the job.
        attempt: the attempt to follow to its end; None follows all attempts from the latest one on.
        is_over: returns whether the job has ended.
        sleep: waits for a number of seconds.
        last: number of lines to show of what is there already; None shows all.
        say: called with a message when the store stops answering; it is then asked again.

    Yields:
        The new text, without splitting a character.
    """
    current, offset, decoder, is_away = attempt, 0, _UTF8("replace"), False
    while True:
        over, found, new = False, [], b""
        try:
            over = is_over()  # checked before reading, so that everything written before is read
            found = source.look()
            current = current or max(found, default=None)
            new = source.read(current, offset) if current else b""
            is_away = False
        except StoreUnreachable as error:
            if not is_away:
                say(f"{error} Trying again until Ctrl-C.")
            is_away, over, found = True, False, []
        offset += len(new)
        text = decoder.decode(new)
        if text and last is not None:
            text, last = last_lines(text, last), None
        if text:
            yield text
        later = [number for number in found if current and number > current]
        if later and attempt is None:
            current, offset, decoder = later[0], 0, _UTF8("replace")
        elif over or later:
            return
        else:
            sleep(source.pause(current))


def last_lines(text: str, lines: int) -> str:
    """Return the last lines of a text, with their ends."""
    return "".join(text.splitlines(keepends=True)[-lines:])
