"""A prefix of an object store belongs to one tracking store."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.ledger import store
from orchestrator.ledger.shared_prefix import OWNER, claim_prefix
from orchestrator.settings import Settings
from schemas.errors import StoreError, StoreUnreachable


def settings(home: Path, objects: str | None) -> Settings:
    return Settings.model_validate({"home": home, "object_store": objects})


def test_the_first_tracking_store_owns_the_prefix_and_another_is_refused(tmp_path: Path) -> None:
    uri = (tmp_path / "objects").as_uri()
    for home, _ in ((tmp_path / "one", 1), (tmp_path / "one", 2)):
        mine = settings(home, uri)
        store.prepare_home(mine)
        assert claim_prefix(mine, store.make_client(mine)) is not None
    other = settings(tmp_path / "other", uri)
    store.prepare_home(other)
    client = store.make_client(other)
    with pytest.raises(StoreError, match=r"belongs to another tracking store.*ORCH_OBJECT_STORE"):
        claim_prefix(other, client)
    (tmp_path / "objects" / OWNER).write_text("{")
    with pytest.raises(StoreError, match="belongs to another"):
        claim_prefix(other, client)
    assert claim_prefix(settings(tmp_path / "other", None), client) is None


def test_an_object_store_that_does_not_answer_is_named_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "orch")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "orch-secret")
    mine = settings(tmp_path, "s3://orch/prefix")
    store.prepare_home(mine)
    with pytest.raises(StoreUnreachable, match=r"s3://orch/prefix at http://127.0.0.1:9 does not answer"):
        claim_prefix(mine, store.make_client(mine))
