"""Finds and creates MLflow runs, one for each job and sweep, although a retried request can create two."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple
from uuid import uuid4

from orchestrator.ledger.experiment import candidates_in
from orchestrator.ledger.home import UNMOVED, Relocation
from orchestrator.ledger.origin import origin_tags
from orchestrator.ledger.store import experiment_of, reaching
from orchestrator.ledger.tags import KEY_TAG, KIND_TAG, has_begun
from schemas.errors import StoreError
from workers.tracking.access import without_password
from workers.tracking.embedded import EmbeddedRuns

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

PAGE = 1000
"""Runs per search request."""
CALL_TAG = "orch.call"
"""Identifies the call that created a run."""
DELETED = "deleted"
"""MLflow's lifecycle stage of a run that was deleted in its UI."""


class Condition(NamedTuple):
    """What runs must meet."""

    text: str
    """The condition in MLflow's search syntax."""
    tag: tuple[str, str]
    """The name and value of one tag of these runs, which the embedded store has an index for."""
    name: str | None = None
    """Name of the sweep that the runs are those of; None if they are of any."""


JOBS = Condition("tags.`orch.kind` = 'job'", (KIND_TAG, "job"))
SWEEPS = Condition("tags.`orch.kind` = 'sweep'", (KIND_TAG, "sweep"))
"""What the runs of all jobs and of all sweeps meet."""


def is_job(key: str) -> Condition:
    """Return the condition that a job's run meets."""
    return Condition(f"tags.`{KEY_TAG}` = '{key}'", (KEY_TAG, key))


def is_sweep(name: str) -> Condition:
    """Return the condition that a sweep's run meets."""
    return Condition(f"{SWEEPS.text} AND tags.`orch.sweep` = '{name}'", SWEEPS.tag, name)


@dataclass(frozen=True)
class MlflowRuns:
    """The runs of one experiment.

    When the answer to a create request is lost, MLflow's client repeats it, and the server may carry out the second
    one at any later time. So several runs can meet one condition. The one that counts is one that has begun, else the
    oldest. Runs of the same call that never began are duplicates, which `only` deletes; any other is left for a person.
    """

    client: MlflowClient
    uri: str
    """The store, for messages."""
    experiment: str | None = None
    """Name of the experiment; None finds the one of orch, whatever it is called now."""
    here: Relocation = UNMOVED
    """Finds recorded paths."""

    def reaching(self) -> AbstractContextManager[None]:
        """Return the context in which every call of `client` belongs; see `store.reaching`."""
        return reaching(self.uri)

    def get(self, run_id: str) -> Run:
        """Return a run, of which only the tags are certain to be read."""
        if (run := self._embedded.run(run_id)) is not None:
            return run
        with self.reaching():
            return self.client.get_run(run_id)

    def find(self, condition: Condition) -> list[Run]:
        """Return runs that meet a condition. Of several for one job or sweep, the one that counts comes first."""
        return sorted(self._search(condition, self._experiment_id), key=lambda run: not has_begun(run.data.tags))

    def deleted(self, condition: Condition, *, everywhere: bool = False) -> list[Run]:
        """Return runs that meet a condition and were deleted in MLflow's UI.

        Args:
            condition: The condition.
            everywhere: Include those that were deleted together with their experiment.
        """
        found = list(self._search(condition, self._experiment_id, deleted=True))
        others = self._deleted_experiments() if everywhere else []
        return found + [run for other in others for run in self._search(condition, other, deleted=True)]

    def only(self, condition: Condition, call: str = "") -> Run | None:
        """Return the run that counts and delete its duplicates.

        Args:
            condition: Of one job or one sweep.
            call: The call that has just created a run, whose duplicates are deleted too.

        Returns:
            The run, or None if no run meets the condition.
        """
        runs = self.find(condition)
        if not runs:
            return None
        counting, *others = runs
        calls = {call, counting.data.tags.get(CALL_TAG, "")} - {""}
        with self.reaching():
            for run in others:
                if run.data.tags.get(CALL_TAG) in calls and not has_begun(run.data.tags):
                    self.client.delete_run(run.info.run_id)
        return counting

    def create(self, condition: Condition, tags: Mapping[str, str], name: str) -> Run:
        """Create a run, which MLflow calls RUNNING until its status is set.

        Args:
            condition: The one that the run meets; it concerns one job or one sweep.
            tags: All identifying tags. They are part of the create request, so that a crash leaves no unnamed run.
            name: The run's name in MLflow's UI.

        Returns:
            The run that counts: the new one, unless another process has created one in the meantime.
        """
        call = {**origin_tags(), **tags, CALL_TAG: uuid4().hex}
        with self.reaching():
            created = self.client.create_run(self._experiment_id, tags=call, run_name=name)
        return self.only(condition, call[CALL_TAG]) or created

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set several tags of a run in one request."""
        from mlflow.entities import RunTag

        with self.reaching():
            self.client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])

    def set_status(self, run_id: str, status: str, ended_at: float | None = None) -> None:
        """Set MLflow's status of a run.

        Args:
            run_id: The run.
            status: The status.
            ended_at: Unix seconds at which the run ended; None if it has not ended.
        """
        with self.reaching():
            if ended_at is None:
                self.client.update_run(run_id, status=status)
            else:
                self.client.set_terminated(run_id, status, int(ended_at * 1000))

    def _search(self, condition: Condition, experiment_id: str, *, deleted: bool = False) -> Iterator[Run]:
        """Yield runs that meet a condition, oldest first, page by page."""
        from mlflow.entities import ViewType

        if (runs := self._embedded.having(*condition.tag, experiment_id)) is not None:
            for run in runs:
                is_of = condition.name is None or run.data.tags.get("orch.sweep") == condition.name
                if is_of and (run.info.lifecycle_stage == DELETED) is deleted:
                    yield run
            return
        view, token = ViewType.DELETED_ONLY if deleted else ViewType.ACTIVE_ONLY, None
        while True:
            with self.reaching():
                page = self.client.search_runs(
                    [experiment_id], condition.text, view, PAGE, order_by=["start_time ASC"], page_token=token
                )
            yield from page
            token = page.token
            if not token:
                return

    def _deleted_experiments(self) -> list[str]:
        with self.reaching():
            return [one.experiment_id for one in candidates_in(self.client) if one.is_deleted]

    @cached_property
    def _embedded(self) -> EmbeddedRuns:
        return EmbeddedRuns(self.uri)

    @cached_property
    def _experiment_id(self) -> str:
        """The experiment, which is found once: later its id is as good, whatever it is called."""
        with self.reaching():
            if self.experiment is None:
                return experiment_of(self.client, self.uri).experiment_id
            experiment = self.client.get_experiment_by_name(self.experiment)
        if experiment is None:
            raise StoreError(f"The store {without_password(self.uri)} has no experiment {self.experiment!r}.")
        return str(experiment.experiment_id)
