"""What travels to a cluster with a detached sweep: the request, settings without secrets, and the id of the job."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.execution.submission import (
    LONGEST,
    Parcel,
    driver_environment,
    next_submission,
    request_fields,
    submission_prefix,
    travelling,
)
from orchestrator.planning.planner import NullResolver, plan
from orchestrator.planning.request import SweepRequest, define
from orchestrator.settings import PREFIX, Settings
from schemas.errors import SpecError
from schemas.sweep import Resources, SweepSpec

SERVER = "http://mlflow:5000"


def test_a_request_that_travelled_means_the_same_jobs() -> None:
    spec = SweepSpec.model_validate(
        {
            "grid": "smoke",
            "base": {"train": {"epochs": 3, "learning_rate": 1e-3}},
            "axes": {"seed": [0, 1], "filter_loss.weight": [0.5, 1.0]},
            "exclude": [{"category": "dog", "seed": 1}],
            "resources": {"cpus_per_worker": 2},
        }
    )
    request = SweepRequest(
        sweep=spec, file_stem="mine", backbones=("alexnet",), sets={"train.batch_size": 8}, folder=Path("/some/where")
    )
    parcel = Parcel.unpacked(Parcel(sweep="mine", request=request_fields(request)).packed())
    arrived = parcel.sweep_request()
    assert arrived is not None
    assert arrived.folder == request.folder
    there, here = (plan(define(one), NullResolver()) for one in (arrived, request))
    assert [job.key for job in there.jobs] == [job.key for job in here.jobs]
    assert (there.name, there.profile, there.warnings) == (here.name, here.profile, here.warnings)
    assert there.resources == here.resources != Resources()


def test_what_the_file_did_not_set_is_still_left_to_the_grid() -> None:
    fields = request_fields(SweepRequest(sweep=SweepSpec(grid="smoke")))
    assert fields["sweep"] == {"grid": "smoke"}


def test_a_parcel_that_the_system_would_not_take_is_refused() -> None:
    noise = {str(number): f"{hash((number, 'x')):x}" for number in range(LONGEST)}
    with pytest.raises(SpecError, match="too large to travel"):
        Parcel(sweep="mine", request=noise).packed()


@pytest.mark.parametrize("text", ["", "no base64!", "bm8gemxpYg=="])
def test_a_parcel_of_another_version_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="install the same orch"):
        Parcel.unpacked(text)


def settings_of(monkeypatch: pytest.MonkeyPatch, **variables: str) -> tuple[Settings, dict[str, str]]:
    environment = {f"{PREFIX}{name}": value for name, value in variables.items()}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return Settings(), environment


def test_settings_travel_and_what_belongs_to_a_machine_does_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings, environment = settings_of(
        monkeypatch, HOME=str(tmp_path), TRACKING_URI=SERVER, DATA_ROOT="/photos", PROFILE="paper",
        RAY_ADDRESS="http://head:8265", RAY_JOBS_ADDRESS="http://head:8265", STORE_PATIENCE_MINUTES="3",
    )  # fmt: skip
    keys = {
        "AWS_SECRET_ACCESS_KEY": "k",
        "AWS_ACCESS_KEY_ID": "k",
        "MLFLOW_TRACKING_PASSWORD": "p",
        "RAY_AUTH_TOKEN": "t",
    }
    endpoint = {"AWS_ENDPOINT_URL_S3": "http://objects:9000"}
    sent, kept = travelling(settings, environment | keys | endpoint)
    assert sent == {"ORCH_TRACKING_URI": SERVER, "ORCH_STORE_PATIENCE_MINUTES": "3", **endpoint}
    assert kept == ()


@pytest.mark.parametrize(
    "uri", ["http://me:hidden@objects:9000", "https://hidden@objects", "http://o:1/?secret=hidden"]
)
def test_an_address_with_a_password_stays(monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    settings, environment = settings_of(monkeypatch, TRACKING_URI=SERVER)
    sent, kept = travelling(settings, environment | {"AWS_ENDPOINT_URL_S3": uri})
    assert kept == ("AWS_ENDPOINT_URL_S3",)
    assert "hidden" not in Parcel(sweep="mine", settings=sent).model_dump_json()
    assert sent == {"ORCH_TRACKING_URI": SERVER}


def test_the_clusters_own_settings_win_and_its_own_ray_is_joined() -> None:
    parcel = Parcel(
        sweep="mine", settings={"ORCH_TRACKING_URI": "http://laptop:5000", "ORCH_OBJECT_STORE": "s3://bucket/orch"}
    )
    cluster = {"ORCH_TRACKING_URI": SERVER, "ORCH_OBJECT_STORE": "", "ORCH_RAY_ADDRESS": "local", "HOME": "/there"}
    assert driver_environment(cluster | {"RAY_ADDRESS": "10.0.0.1:6379"}, parcel) == {
        "ORCH_TRACKING_URI": SERVER,
        "ORCH_OBJECT_STORE": "s3://bucket/orch",
        "ORCH_RAY_ADDRESS": "10.0.0.1:6379",
        "RAY_ADDRESS": "10.0.0.1:6379",
        "HOME": "/there",
    }


def test_ids_count_on_and_are_those_of_one_sweep_in_one_store() -> None:
    prefix = submission_prefix("mine", "1 1700000000000")
    assert next_submission(prefix, []) == f"{prefix}1"
    known = [
        f"{prefix}1",
        f"{prefix}10",
        f"{prefix}2",
        f"{prefix}x",
        "raysubmit_1",
        submission_prefix("other", "1") + "30",
    ]
    assert next_submission(prefix, known) == f"{prefix}11"
    assert submission_prefix("mine", "1 1800000000000") != prefix
    # `mine` and `mine-1` in one store do not take each other for their own
    assert not submission_prefix("mine-1", "1 1700000000000").startswith(prefix)
