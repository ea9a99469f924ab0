"""What travels to a cluster with a detached sweep, and under which name: no secret, and no path of this machine. Pure.

The settings of the cluster's own environment count. Those of the submitting machine only fill what is not set there.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import Field, TypeAdapter

from orchestrator.planning.request import SweepRequest
from orchestrator.settings import PARCEL, PREFIX, Settings
from schemas.base import Stored
from schemas.errors import SpecError

LONGEST = 64_000
"""Characters of a parcel. The system limits one variable to 128 KiB."""
OF_ONE_MACHINE = frozenset({"home", "data_root", "profile", "ray_address", "ray_jobs_address", "notify"})
"""Settings that mean nothing on another machine, were used up by planning, or are secret."""
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "MLFLOW_S3_ENDPOINT_URL", "AWS_DEFAULT_REGION")
"""Variables besides our own that say where a store is. Those that hold keys stay where they are."""
_SECRET = re.compile(r"://[^/\s@]*@|(pass(word|wd)?|secret|token|key|sig(nature)?)\s*=", re.IGNORECASE)
_REQUEST: TypeAdapter[SweepRequest] = TypeAdapter(SweepRequest)


class Parcel(Stored):
    """What the supervisor of a detached sweep is given."""

    sweep: str
    code: str = ""
    """Digest of the submitting machine's orch (`CodeHome.sha256`)."""
    run_id: str = ""
    """The sweep's MLflow run; empty if the sweep is to be planned in the cluster."""
    request: dict[str, Any] | None = None
    """The request to plan there; None if the plan is in the store."""
    workers: int | None = None
    settings: dict[str, str] = Field(default_factory=dict)
    """Variables for the driver, where the cluster does not set them."""

    def packed(self) -> str:
        """Return the parcel as the value of a variable.

        Raises:
            SpecError: It is too large.
        """
        text = b64encode(zlib.compress(self.model_dump_json().encode(), 9)).decode()
        if len(text) > LONGEST:
            raise SpecError(
                f"The sweep file is too large to travel to the cluster ({len(text)} of {LONGEST} characters, "
                "compressed). Split it, or plan it where its data are: run `orch submit` on a machine that has them."
            )
        return text

    @classmethod
    def unpacked(cls, text: str) -> Parcel:
        """Return the parcel of a variable.

        Raises:
            SpecError: It is none, so another version of orch sent it.
        """
        try:
            return cls.model_validate_json(zlib.decompress(b64decode(text, validate=True)))
        except (ValueError, zlib.error) as error:
            raise SpecError(
                f"{PARCEL} holds no sweep of this version of orch ({type(error).__name__}). It is set by "
                "`orch submit`; install the same orch on both machines."
            ) from error

    def sweep_request(self) -> SweepRequest | None:
        """Return the request to plan in the cluster; None if the plan is in the store."""
        return None if self.request is None else _REQUEST.validate_python(self.request)


def request_fields(request: SweepRequest) -> dict[str, Any]:
    """Return a request as plain values, without what was not set, so that layers below it still show through."""
    fields: dict[str, Any] = _REQUEST.dump_python(request, mode="json", exclude_unset=True)
    return fields


def travelling(settings: Settings, environment: Mapping[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the variables that the driver in a cluster is given, and the names of those that stay for their secrets.

    Args:
        settings: Those of the submitting machine.
        environment: Its variables.
    """
    own = [PREFIX + name.upper() for name in type(settings).model_fields if name not in OF_ONE_MACHINE]
    given = {name: environment[name] for name in (*own, *ENDPOINTS) if environment.get(name)}
    kept = tuple(name for name, value in given.items() if _SECRET.search(value))
    return {name: value for name, value in given.items() if name not in kept}, kept


def driver_environment(environment: Mapping[str, str], parcel: Parcel) -> dict[str, str]:
    """Return the environment of the driver in the cluster.

    Args:
        environment: That of the supervisor: the cluster's own, and what Ray sets for its jobs.
        parcel: Fills what is not set there.
    """
    own = {name: value for name, value in environment.items() if value or name not in parcel.settings}
    address = {"ORCH_RAY_ADDRESS": environment["RAY_ADDRESS"]} if environment.get("RAY_ADDRESS") else {}
    return {**parcel.settings, **own, **address}


def submission_prefix(sweep: str, store_id: str) -> str:
    """Return how the ids of all submissions of a sweep begin.

    Args:
        sweep: Name of the sweep.
        store_id: Text that is the same on every machine that uses the store.
    """
    return f"orch-{sweep}-{hashlib.sha256(store_id.encode()).hexdigest()[:8]}-"


def next_submission(prefix: str, known: Iterable[str]) -> str:
    """Return the id of a sweep's next submission: the number after the highest one that the cluster remembers.

    Two machines that submit at once find the same id, of which Ray takes one.

    Args:
        prefix: Of the sweep.
        known: The ids of all submissions of the cluster.
    """
    numbers = [int(end) for one in known if (end := one.removeprefix(prefix)) != one and end.isdecimal()]
    return f"{prefix}{max(numbers, default=0) + 1}"
