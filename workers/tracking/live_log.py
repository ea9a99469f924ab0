"""Uploads a job's log while it is written, so that people on other machines can read it, also when this one dies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from schemas.errors import Superseded
from schemas.order import WorkOrder
from workers.tracking.background import repeating
from workers.tracking.job_log import log_path
from workers.tracking.run_log import RunLog

FIRST_SECONDS, SECONDS = 2.0, 8.0
"""Pauses before the first upload and between two."""


@dataclass
class LiveLog:
    """The log file of one attempt, and what its run has of it."""

    path: Path
    open_run: Callable[[], RunLog]
    _run: RunLog | None = field(default=None, init=False)
    _uploaded: int = field(default=-1, init=False)
    """Size of the file at the last upload."""

    def upload(self) -> None:
        """Upload the file if it has grown. A failed try is repeated by the next call, with a new connection.

        Raises:
            Superseded: another attempt has the job.
        """
        try:
            size = self.path.stat().st_size
            if size == self._uploaded:
                return
            self._run = self._run or self.open_run()
            self._run.log_log(self.path)
            self._uploaded = size
        except Superseded:
            raise
        except Exception:  # noqa: BLE001 - an outage delays the copy, and nothing here may disturb the job
            self._run = None


@contextmanager
def live_log(order: WorkOrder) -> Iterator[None]:
    """Upload the attempt's log in the background within the context, if the tracking store is a server.

    With a database on this machine, everyone who reads the store can read the file itself.

    Args:
        order: the job; without a `log_dir` it has no log.
    """
    if order.log_dir is None or not order.tracking_uri.startswith(("http://", "https://")):
        yield
        return
    log = LiveLog(
        log_path(Path(order.log_dir), order.spec.key, order.attempt),
        lambda: RunLog(order.tracking_uri, order.run_id, order.attempt),
    )
    with repeating(log.upload, first=FIRST_SECONDS, pause=SECONDS):
        yield
