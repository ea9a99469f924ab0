"""Secrets stay where they are put: planted ones are looked for wherever a sweep and its services write."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.chaos.stage import wait_for
from tests.support.composed import Composed, composed, missing, postgres_programs
from tests.support.secret_scan import Found, forms, in_bucket, in_bytes, in_files, in_postgres, watching
from tests.test_compose import NAMES, write_secrets

SWEEP = """
name: NAME
profile: laptop
base:
  backbone: alexnet
  category: voc_part/cat
  model: {input_size: 64, width: 0.125, fc_width: 32}
  data: {train_per_category: 12, test_per_category: 4}
  weights: {source: random}
  train: {epochs: EPOCHS, batch_size: 8}
axes: {variant: [ordinary, interpretable], seed: [SEED]}
include:
  - {variant: ordinary, seed: SEED, train.learning_rate: 1.0e+30}
"""
"""Two jobs, and one that raises an error in the worker."""
QUICK_SECONDS = 60.0
"""A refusal takes no longer, imports on a busy machine included. An outage is waited for ten times as long."""


def test_a_secret_is_found_in_every_form_that_text_takes() -> None:
    secret = "Planted/of+the-server=0123456789abc"
    assert len(forms(secret)) == 5
    for text in (
        f"http://me:{secret}@host", "x=Planted%2Fof%2Bthe-server%3D0123456789abc",
        *(_base64(f"{'u' * n}:{secret}{'z' * n}") for n in range(4)),
    ):  # fmt: skip
        assert in_bytes(text.encode(), {"PASSWORD": secret}, "here") == [Found("PASSWORD", "here")], text
    assert in_bytes(b"nothing", {"PASSWORD": secret}, "here") == []


def test_files_and_processes_are_looked_at(tmp_path: Path) -> None:
    secret = "Planted-of-the-server-0123456789abc"
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/file").write_bytes(b"\0\xff" + secret.encode())
    assert in_files([tmp_path], {"A": secret}) == [Found("A", str(tmp_path / "deep/file"))]
    with watching({"A": secret}) as found:
        sleeper = subprocess.Popen([sys.executable, "-c", "input()", secret], stdin=subprocess.PIPE)
        wait_for(lambda: found, 20.0, "the process to be seen")
        sleeper.communicate(b"\n")
    assert {one.name for one in found} == {"A"}


def _base64(text: str) -> str:
    import base64

    return base64.b64encode(text.encode()).decode()


@pytest.fixture(scope="module")
def stack() -> Iterator[Composed]:
    if lack := missing():
        pytest.skip(lack)
    with tempfile.TemporaryDirectory(prefix="orch-stack-", dir="/tmp") as name:  # pytest's own folders are root's alone
        write_secrets(Path(name) / "env")
        secrets = dict(line.split("=", 1) for line in (Path(name) / "env").read_text().splitlines())
        (Path(name) / "env").unlink()
        with composed(Path(name), secrets) as made:
            yield made


class Desk:
    """A terminal at which `orch` is typed, with the environment of the head's container."""

    def __init__(self, stack: Composed, home: Path) -> None:
        self.environment = {**stack.environment("head"), "ORCH_HOME": str(home)}
        self.environment.pop("ORCH_RAY_ADDRESS")
        self.environment.pop("ORCH_DATA_ROOT")
        self.log = home.with_suffix(".said")
        """What its commands have printed."""
        self.pids: set[str] = set()

    def start(self, *words: str, **changed: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "orchestrator.cli.main", *words]
        environment = {name: value for name, value in {**self.environment, **changed}.items() if value}
        with open(self.log, "ab") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        self.pids.add(str(process.pid))
        return process

    def private_rays(self) -> Iterator[Path]:
        """Yield the folders of the private Rays of its commands, which are deleted when they end."""
        for owner in Path("/tmp").glob("orch-ray-*/orch-driver"):
            with suppress(OSError):
                if owner.read_text().split()[-1] in self.pids:
                    yield owner.parent

    def type(self, *words: str, **changed: str) -> tuple[int, str, float]:
        """Run a command; return its exit code, what it said and how many seconds it took."""
        began, before = time.monotonic(), self.log.stat().st_size if self.log.exists() else 0
        code = self.start(*words, **changed).wait(280)
        return code, self.log.read_bytes()[before:].decode(), time.monotonic() - began


def sweep_file(folder: Path, name: str, seed: int, epochs: int) -> str:
    path = folder / f"{name}.yaml"
    path.write_text(SWEEP.replace("NAME", name).replace("SEED", str(seed)).replace("EPOCHS", str(epochs)))
    return str(path)


def jobs_of(desk: Desk, name: str) -> dict[str, int]:
    """Return the number of jobs of a sweep by status; empty before it has begun."""
    code, said, _ = desk.type("status", "--json")
    assert code == 0, said
    counts: list[dict[str, int]] = [sweep["counts"] for sweep in json.loads(said) if sweep["sweep"] == name]
    return counts[0] if counts else {}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_planted_secrets_are_nowhere_after_a_sweep_with_failures(stack: Composed, tmp_path: Path) -> None:
    desk = Desk(stack, tmp_path / "home")
    wrong = "Planted-wrong-password-0123456789"
    planted = {**stack.secrets, "wrong": wrong}
    found: list[Found] = []
    with (
        tempfile.TemporaryDirectory(prefix="orch-scan-", dir="/tmp") as ray,
        watching(planted, desk.private_rays) as seen,
    ):
        ray_folder = Path(ray)
        refusals = (
            ({"MLFLOW_TRACKING_PASSWORD": wrong}, "does not accept user 'orch'"),
            ({"MLFLOW_TRACKING_PASSWORD": "", "MLFLOW_TRACKING_USERNAME": ""}, "none are set"),
        )
        for given, what in refusals:
            for words in (("status",), ("sweep", sweep_file(tmp_path, "first", 0, 2))):
                code, said, seconds = desk.type("--debug", *words, **given)
                lines = [line for line in said.splitlines() if line.startswith("error: ")]
                assert (code, len(lines)) == (4, 1), said
                assert what in lines[0]
                assert seconds < QUICK_SECONDS, words
        in_uri = stack.mlflow.replace("://", f"://orch:{wrong}@")
        code, said, _ = desk.type("--debug", "status", ORCH_TRACKING_URI=in_uri)
        assert code == 2
        assert "ORCH_TRACKING_URI must not hold credentials" in said

        # a private Ray, and the password from a file, as containers get it
        password = tmp_path / "password"
        password.write_text(stack.secrets["MLFLOW_TRACKING_PASSWORD"] + "\n")
        from_file = {"MLFLOW_TRACKING_PASSWORD": "", "MLFLOW_TRACKING_PASSWORD_FILE": str(password)}
        code, said, _ = desk.type(
            "--debug", "sweep", sweep_file(tmp_path, "first", 0, 2), "--workers", "2", **from_file
        )
        assert code == 1, said  # one job diverges
        password.unlink()

        # a cluster with token authentication, and an outage of the tracking server
        stack.start_ray(ray_folder, tmp_path / "node")
        address = {"ORCH_RAY_ADDRESS": f"127.0.0.1:{stack.ports['head']}", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
        wait_for(lambda: (ray_folder / "session_latest/logs/raylet.out").exists(), 60.0, "Ray")
        driver = desk.start("--debug", "sweep", sweep_file(tmp_path, "second", 1, 6), "--workers", "2", **address)
        logs = tmp_path / "home/logs"
        earlier = set(logs.glob("*/*.log"))
        try:
            wait_for(
                lambda: (
                    driver.poll() is not None
                    or any("epoch 1/6" in log.read_text() for log in set(logs.glob("*/*.log")) - earlier)
                ),
                280.0,
                "a job to train",
            )
            stack.stop("mlflow")
            stack.start("mlflow")
            stack.await_answer("mlflow", "/health")
            assert driver.wait(280) == 1, desk.log.read_text()[-3000:]
        finally:
            driver.kill()
            driver.wait()
        assert jobs_of(desk, "second") == {"done": 2, "failed": 1}
        for words in (("why", "second"), ("ui",)):
            code, said, _ = desk.type("--debug", *words)
            assert code == 0, said
        assert list(ray_folder.glob("session_2*/logs/*"))
        found += in_files([tmp_path, ray_folder, *stack.folder.glob("*.log")], planted)
        stack.stop("head")

    uri = f"postgresql://mlflow@127.0.0.1:{stack.ports['postgres']}/mlflow"
    programs = postgres_programs()
    assert programs is not None
    with_password = {**os.environ, "PGPASSWORD": stack.secrets["POSTGRES_PASSWORD"]}
    found += in_postgres(uri, planted, with_password, programs / "pg_dump")
    found += in_bucket(client_of(stack), "orch", planted)
    assert not [*found, *seen]
    assert set(NAMES) <= set(planted)
    assert desk.log.read_text().count("Traceback") >= 5  # `--debug` was on


def client_of(stack: Composed) -> Any:
    return boto3.client(
        "s3", endpoint_url=f"http://127.0.0.1:{stack.ports['objects']}", region_name="us-east-1",
        aws_access_key_id=stack.secrets["S3_ACCESS_KEY"], aws_secret_access_key=stack.secrets["S3_SECRET_KEY"],
    )  # fmt: skip
