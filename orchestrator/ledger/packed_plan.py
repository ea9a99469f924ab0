"""How a plan is written: field by field, each value once, because the many jobs of a sweep differ in few fields.

Reading it back gives dictionaries that share their equal parts, so that a plan of 100,000 jobs fits into memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from orchestrator.ledger.records import JobName, StoredPlan

_ABSENT = -1
"""Stands for the place of a value where a job lacks the field."""


def pack(plan: StoredPlan) -> bytes:
    """Return a plan as JSON, without the names of its jobs."""
    fields = plan.model_dump(mode="json", exclude={"jobs", "names"})
    return _written({**fields, "jobs": _columns(plan.jobs)})


def unpack(content: bytes, here: Callable[[Any], Any]) -> StoredPlan:
    """Return the plan that `pack` has written, or an earlier version of orch, which wrote whole jobs, with names.

    Args:
        content: The JSON.
        here: Maps recorded paths in a value to where they are now.

    Raises:
        ValueError: It is of another version of orch.
    """
    found = json.loads(content)
    if isinstance(found["jobs"], dict):
        return StoredPlan.model_validate({**found, "jobs": _rows(found["jobs"], here)})
    return StoredPlan.model_validate({**found, "jobs": here(found["jobs"])})


def pack_names(names: Sequence[JobName]) -> bytes:
    """Return the names of a plan's jobs as JSON."""
    return _written(names)


def unpack_names(content: bytes) -> tuple[JobName, ...]:
    """Return the names that `pack_names` has written.

    Raises:
        ValueError: They are of another version of orch.
    """
    try:
        return tuple(JobName(*name) for name in json.loads(content))
    except TypeError as error:
        raise ValueError(str(error)) from error


def _written(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _columns(jobs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the number of jobs, and for each field its values and which of them each job has."""
    columns: dict[str, dict[str, list[Any]]] = {}
    places: dict[tuple[str, str], int] = {}
    known: dict[tuple[str, int], int] = {}  # by identity, for values that several jobs share already
    for number, job in enumerate(jobs):
        for name, value in job.items():
            column = columns.setdefault(name, {"values": [], "jobs": []})
            column["jobs"] += [_ABSENT] * (number - len(column["jobs"]))
            place = known.get((name, id(value)))
            if place is None:
                place = places.setdefault((name, json.dumps(value)), len(column["values"]))
                known[name, id(value)] = place
                if place == len(column["values"]):
                    column["values"].append(value)
            column["jobs"].append(place)
    return {"count": len(jobs), "fields": columns}


def _rows(columns: dict[str, Any], here: Callable[[Any], Any]) -> list[dict[str, Any]]:
    jobs: list[dict[str, Any]] = [{} for _ in range(columns["count"])]
    for name, column in columns["fields"].items():
        values = [here(value) for value in column["values"]]
        for job, place in zip(jobs, column["jobs"], strict=False):
            if place != _ABSENT:
                job[name] = values[place]
    return jobs
