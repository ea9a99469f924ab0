"""What the finished jobs of a store tell of new jobs: how long each kind takes."""

from __future__ import annotations

import json
from collections.abc import Iterable

from orchestrator.execution.estimate import Finished, Kind, kind_in
from orchestrator.ledger.records import JobRecord
from orchestrator.planning.setting_layers import lookup
from schemas.lifecycle import JobState


def past_of(records: Iterable[JobRecord]) -> Finished:
    """Return what jobs took of their worker process that succeeded in their first attempt, in seconds.

    A later attempt goes on from a checkpoint. A job that ran beside others of a pack took its share of the time.
    """
    found = Finished()
    for record in records:
        kind = kind_of_record(record)
        result = record.result
        if kind is not None and result is not None and result.attempt == 1 and result.seconds > 0:
            found.add(kind, result.seconds / result.jobs_at_once)
    return found


def kind_of_record(record: JobRecord) -> Kind | None:
    """Return the kind of a job that succeeded; None for others, and if another version of orch wrote its spec."""
    if record.state is not JobState.SUCCEEDED:
        return None
    fields = json.loads(record.spec_json)  # not `record.fields`, which would stay in memory
    try:
        kind = kind_in(fields, bool(lookup(fields, "is_pretraining")))
    except TypeError:  # it lists no categories
        return None
    return None if None in kind else kind
