"""Decides whose checkpoints a prefix of an object store holds: those of one tracking store, and no other's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.ledger.experiment import HOME_ID_TAG
from orchestrator.ledger.store import experiment_of, reaching
from orchestrator.settings import Settings
from schemas.base import Stored
from schemas.errors import ObjectConflict, StoreError
from workers.objects.base import ABSENT, ObjectStore, open_objects

if TYPE_CHECKING:
    from mlflow import MlflowClient

OWNER = "owner.json"
"""Object that names the tracking store to which the prefix belongs."""


class Owner(Stored):
    """Content of `owner.json`."""

    store: str
    """Id of the home, or of the experiment in a store without one."""


def claim_prefix(settings: Settings, client: MlflowClient) -> ObjectStore | None:
    """Check that the object store can be written and belongs to this tracking store; the first sweep makes it so.

    Args:
        settings: name both stores.
        client: a client of the tracking store.

    Returns:
        The object store; None if the settings name none.

    Raises:
        StoreError: it refuses, or belongs to another tracking store.
        StoreUnreachable: it does not answer.
    """
    if settings.object_store is None:
        return None
    with reaching(settings.store_uri):
        found_id = experiment_of(client, settings.store_uri).experiment_id
        experiment = client.get_experiment(found_id)
    mine = Owner(store=experiment.tags.get(HOME_ID_TAG) or f"{found_id}-{experiment.creation_time}")
    objects = open_objects(settings.object_store)
    found = objects.read(OWNER)
    if found is None:
        try:
            objects.write(OWNER, mine.model_dump_json().encode(), ABSENT)
        except ObjectConflict:
            found = objects.read(OWNER)
        else:
            return objects
    if found is None or _owner(found[0]) != mine:
        raise StoreError(
            f"The object store {objects.where} belongs to another tracking store, whose checkpoints would be mixed "
            "with this one's. Give each tracking store a prefix of its own in ORCH_OBJECT_STORE."
        )
    return objects


def _owner(content: bytes) -> Owner | None:
    try:
        return Owner.model_validate_json(content)
    except ValueError:
        return None
