"""Ray's jobs API of one cluster, over HTTP: needs no other port of it, and no Ray on this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from orchestrator.execution.in_time import Hung, within
from schemas.errors import ResourceError, SweepBusy
from workers.tracking.access import without_password

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

ANSWER_SECONDS = 20.0
"""Longest time to wait for one answer: Ray's client itself would wait for ever."""
LOG_LINES = 15
"""Lines of a log that a message shows."""
ENTRYPOINT = "exec orch drive"
"""`exec`, so that signals of Ray reach orch and not a shell."""
_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Submission:
    """One job of the jobs API."""

    id: str
    is_alive: bool
    since: float
    """Unix seconds at which it was submitted."""
    exit_code: int | None
    """Of its process; None while it runs, and if Ray does not know it."""
    message: str
    """What Ray says of its state."""


class RayJobs:
    """A connection to the jobs API."""

    def __init__(self, address: str) -> None:
        """Connect.

        Args:
            address: Of the dashboard, such as `http://head:8265`.

        Raises:
            ResourceError: Nothing answers there, or no Ray, or it refuses this machine's token.
        """
        self.address = without_password(address)
        self._client: JobSubmissionClient = self._ask(lambda: _connect(address))

    def all(self) -> list[Submission]:
        """Return every submission that the cluster remembers.

        Raises:
            ResourceError: The cluster does not answer.
        """
        return [_submission(one) for one in self._ask(self._client.list_jobs) if one.submission_id]

    def find(self, submission_id: str) -> Submission:
        """Return one submission.

        Raises:
            ResourceError: The cluster does not answer, or does not know it.
        """
        return _submission(self._ask(lambda: self._client.get_job_info(submission_id)))

    def submit(self, submission_id: str, environment: dict[str, str]) -> None:
        """Start the supervisor of a sweep.

        Args:
            submission_id: Its id.
            environment: Variables that it gets besides the cluster's own.

        Raises:
            SweepBusy: Another machine has just taken the id.
            ResourceError: The cluster does not answer, or does not take the job.
        """
        self._ask(
            lambda: self._client.submit_job(
                entrypoint=ENTRYPOINT, submission_id=submission_id, runtime_env={"env_vars": environment}
            )
        )

    def end_of_log(self, submission_id: str) -> str:
        """Return the last lines that a submission has written; empty if they cannot be had."""
        try:
            text = self._ask(lambda: self._client.get_job_logs(submission_id))
        except ResourceError:
            return ""
        return "\n".join(text.strip().splitlines()[-LOG_LINES:])

    def _ask(self, question: Callable[[], _Answer]) -> _Answer:
        """Ask in a thread that is left alone if no answer comes."""
        try:
            return within(ANSWER_SECONDS, question)
        except Hung:
            problem = self._explained(TimeoutError(f"no answer within {ANSWER_SECONDS:.0f} s"))
        except Exception as error:  # noqa: BLE001 - raised below, by its kind
            problem = self._explained(error)
        raise problem

    def _explained(self, error: Exception) -> ResourceError | SweepBusy:
        text = str(error).strip()
        first = without_password(text.splitlines()[0].rstrip(".") if text else type(error).__name__)
        if type(error).__name__ == "AuthenticationError":
            return ResourceError(
                f"The cluster at {self.address} does not accept this machine ({first}). Set RAY_AUTH_MODE=token, and "
                "RAY_AUTH_TOKEN or the file of RAY_AUTH_TOKEN_PATH to the token of the cluster."
            )
        if "already exists" in text:
            return SweepBusy("Another machine has just submitted this sweep. `orch status` shows who drives it.")
        return ResourceError(
            f"No jobs API of Ray answers at {self.address} ({first}). Start that cluster with its dashboard "
            "(`ray start --head --dashboard-host=0.0.0.0`), or correct ORCH_RAY_ADDRESS or ORCH_RAY_JOBS_ADDRESS."
        )


def _connect(address: str) -> JobSubmissionClient:
    from ray.job_submission import JobSubmissionClient

    return JobSubmissionClient(address)


def _submission(found: JobDetails | Any) -> Submission:
    return Submission(
        id=str(found.submission_id),
        is_alive=not found.status.is_terminal(),
        since=(found.start_time or 0) / 1000,
        exit_code=found.driver_exit_code,
        message=found.message or "",
    )
