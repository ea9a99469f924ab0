"""How a sweep's plan, and the names of its jobs, are written as tags of its run, and read from them."""

from __future__ import annotations

import hashlib
import lzma
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from itertools import count, takewhile

from orchestrator.ledger.home import Relocation
from orchestrator.ledger.packed_plan import pack, pack_names, unpack, unpack_names
from orchestrator.ledger.records import JobName, StoredPlan
from orchestrator.ledger.tags import PLAN_TAG, TAG_LIMIT
from schemas.errors import StoreError

PLAN_PART = "orch.plan."
"""The start of the tags `orch.plan.0`, `orch.plan.1`, ... that hold the plan: its JSON, compressed, in base64."""
NAMES_PART = "orch.names."
"""The start of the tags that hold the names of the plan's jobs in the same way, so that they are read without it.
10,000 jobs take about 20 of them. Plans of earlier versions of orch hold their names themselves."""
PLAN_FILE = "plan.json"
"""Where earlier versions of orch kept the plan: among the artifacts of the sweep's run, uncompressed."""
ROOT_TAG = "orch.data_root"
"""The folder of the photographs, if it has changed since the sweep was planned."""


def plan_tags(plan: StoredPlan) -> dict[str, str]:
    """Return the tags that hold a plan. The last one, PLAN_TAG, says that the others were written completely."""
    content = pack(plan)
    return {
        **_parts(PLAN_PART, content),
        **_parts(NAMES_PART, pack_names(plan.names)),
        PLAN_TAG: hashlib.sha256(content).hexdigest(),
    }


def _parts(start: str, content: bytes) -> dict[str, str]:
    text = b64encode(lzma.compress(content, preset=2)).decode()
    parts = (text[at : at + TAG_LIMIT] for at in range(0, len(text), TAG_LIMIT))
    return {f"{start}{number}": part for number, part in enumerate(parts)}


def _joined(start: str, tags: Mapping[str, str]) -> bytes | None:
    """What `_parts` has written; nothing if it is damaged, None if there is no such tag."""
    parts = list(takewhile(bool, (tags.get(f"{start}{number}", "") for number in count())))
    try:
        return lzma.decompress(b64decode("".join(parts), validate=True)) if parts else None
    except (ValueError, lzma.LZMAError):
        return b""


def read_plan(
    tags: Mapping[str, str], here: Relocation, artifacts: str, read_file: Callable[[], bytes | None]
) -> StoredPlan:
    """Return a sweep's plan.

    Args:
        tags: The tags of the sweep's run; PLAN_TAG is one of them.
        here: Finds recorded paths.
        artifacts: The folder of the run's artifacts, for messages.
        read_file: Reads PLAN_FILE, or returns None if there is none; called if an earlier version of orch planned it.

    Raises:
        StoreError: The plan is gone, does not match its digest, or is of another version of orch.
    """
    where, name = f"the tags {PLAN_PART}0, ... of its run", tags["orch.sweep"]
    content = _joined(PLAN_PART, tags)
    if content is None:
        where, content = f"{artifacts}/{PLAN_FILE}", read_file()
    if content is None:
        raise _unusable_plan(name, where, "gone")
    if hashlib.sha256(content).hexdigest() != tags[PLAN_TAG]:
        raise _unusable_plan(name, where, "damaged")
    try:
        plan = unpack(content, here.fields)
    except (KeyError, TypeError, ValueError) as error:
        raise _unusable_plan(name, where, "of another version of orch") from error
    root = (tags[ROOT_TAG] or None) if ROOT_TAG in tags else plan.data_root
    return plan.model_copy(update={"names": plan.names or read_names(tags), "data_root": here.fields(root)})


def read_names(tags: Mapping[str, str]) -> tuple[JobName, ...]:
    """Return the names of the jobs of a sweep's plan; none if only the plan has them.

    Args:
        tags: The tags of the sweep's run.

    Raises:
        StoreError: The names are damaged, or of another version of orch.
    """
    content = _joined(NAMES_PART, tags)
    if content is None:
        return ()
    try:
        return unpack_names(content)
    except ValueError as error:
        raise _unusable_plan(tags["orch.sweep"], f"the tags {NAMES_PART}0, ... of its run", "damaged") from error


def _unusable_plan(name: str, where: str, what: str) -> StoreError:
    return StoreError(
        f"The plan of sweep {name} ({where}) is {what}, so its jobs are unknown and it cannot be "
        "resumed. Restore it, or repeat the original `orch sweep` command with a new `--name`: finished jobs are "
        "reused."
    )
