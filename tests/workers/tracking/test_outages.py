"""No message shows the password of a store."""

from __future__ import annotations

import pytest

from workers.tracking.outages import without_password


@pytest.mark.parametrize(
    "uri",
    [
        "http://me:s3cret@host:5000/a",
        "postgresql://me:p@ss/s3cret@host/db",
        "postgresql://:s3cret@host/db",
        "https://host/x?user=me&password=s3cret&n=1",
        "http://me:s3cret@[bad",
        "mysql+pymysql://me:s3cret%40@host",
    ],
)
def test_a_password_is_in_no_message(uri: str) -> None:
    message = without_password(f"The store {uri} cannot be used: failed for url {uri} (again). Start it.")
    assert "s3cret" not in message
    assert message.count("***") == 2
    assert message.endswith("(again). Start it.")


def test_a_uri_without_a_password_is_left_as_it_is() -> None:
    for uri in ("http://127.0.0.1:5000", "sqlite:////x/a@b:c/mlflow.db", "postgresql://me@host:5432/db", "s3://b/k"):
        assert without_password(f"The store {uri} is gone.") == f"The store {uri} is gone."
