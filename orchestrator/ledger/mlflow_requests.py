"""Requests to a sweep's driver as tags of the sweep's run."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.ledger.mlflow_runs import MlflowRuns
from orchestrator.ledger.records import ControlRequest

REQUEST_TAG = "orch.request."
"""Prefix of the tags; the request's id follows."""


@dataclass(frozen=True)
class MlflowRequests:
    """The part of `MlflowLedger` that stores requests. A sweep is given by the id of its run."""

    runs: MlflowRuns

    def add(self, run_id: str, request: ControlRequest) -> None:
        """See `LedgerWriter.add_request`."""
        with self.runs.reaching():
            self.runs.client.set_tag(run_id, f"{REQUEST_TAG}{request.id}", request.model_dump_json())

    def pending(self, run_id: str) -> list[ControlRequest]:
        """See `LedgerWriter.pending_requests`."""
        tags = self.runs.get(run_id).data.tags
        texts = (value for name, value in tags.items() if name.startswith(REQUEST_TAG))
        return sorted(map(ControlRequest.model_validate_json, texts), key=lambda request: request.at)

    def remove(self, run_id: str, request: ControlRequest) -> None:
        """See `LedgerWriter.remove_request`."""
        if request in self.pending(run_id):
            with self.runs.reaching():
                self.runs.client.delete_tag(run_id, f"{REQUEST_TAG}{request.id}")
