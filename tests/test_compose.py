"""The service deployment: no default secret, pinned images, unprivileged users, health checks, and locked packages."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.compose import ROOT, VARIABLE, Refused, command, fill, load

sys.path.append(str(ROOT / "deploy"))
from new_secrets import NAMES, write_secrets

FILES = (("docker-compose.yml",), ("docker-compose.yml", "docker-compose.gpu.yml"))
TEXTS = [ROOT / name for name in ("docker-compose.yml", "docker-compose.gpu.yml")]
SECRET = re.compile(r"(?i)password|secret|token|_key\b")
SETTINGS = {"ORCH_DATA_ROOT", "WORKER_CPUS", "WORKER_GPUS", "WORKER_MEMORY"}
PINNED = re.compile(r"[a-z./-]+:\d+\.\d+[\w.-]*")


@pytest.fixture
def secrets(tmp_path: Path) -> dict[str, str]:
    write_secrets(tmp_path / ".env")
    return dict(line.split("=", 1) for line in (tmp_path / ".env").read_text().splitlines())


@pytest.fixture(params=FILES, ids=" ".join)
def services(request: pytest.FixtureRequest, secrets: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = fill(load(*request.param)["services"], {**secrets, "WORKER_GPUS": "2"})
    return found


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_every_secret_is_required_and_the_command_that_makes_it_is_named(path: Path) -> None:
    found = list(VARIABLE.finditer(path.read_text()))
    named = {match["name"]: (match["how"], match["text"]) for match in found if match["name"]}
    assert set(named) <= set(NAMES) | SETTINGS
    for name in set(named) & set(NAMES):
        assert named[name] == (":?", "run make secrets"), name
    if path.name == "docker-compose.yml":
        assert set(NAMES) <= set(named)
    assert not [name for name in set(named) - set(NAMES) if SECRET.search(name)]


@pytest.mark.parametrize("name", NAMES)
def test_nothing_starts_without_a_secret(name: str, secrets: dict[str, str]) -> None:
    with pytest.raises(Refused, match=f"{name}: run make secrets"):
        fill(load(), {**secrets, name: ""})


def test_no_value_that_looks_like_a_secret_is_written_down(secrets: dict[str, str]) -> None:
    for name, service in load()["services"].items():
        for variable, value in service.get("environment", {}).items():
            if SECRET.search(variable) and not variable.endswith(("_PATH", "MODE")):
                assert fill(value, secrets) in secrets.values(), (name, variable)


def test_no_secret_is_in_a_command_line(services: dict[str, Any], secrets: dict[str, str]) -> None:
    for service in services.values():
        words = " ".join([*command(service), *map(str, service.get("healthcheck", {}).get("test", []))])
        assert not [name for name, value in secrets.items() if value in words]


def test_secrets_are_new_private_and_never_overwritten(tmp_path: Path) -> None:
    first, second = tmp_path / "1.env", tmp_path / "2.env"
    second.write_text("WORKER_CPUS=2\nRAY_AUTH_TOKEN=mine")
    told = [write_secrets(path) for path in (first, second)]
    values = [dict(line.split("=", 1) for line in path.read_text().splitlines()) for path in (first, second)]
    assert set(values[0]) == set(NAMES)
    assert values[1] == {**values[1], "WORKER_CPUS": "2", "RAY_AUTH_TOKEN": "mine"}
    assert set(NAMES) <= set(values[1])
    made = [*values[0].values(), *(value for name, value in values[1].items() if name in NAMES)]
    assert len(set(made)) == 2 * len(NAMES)
    assert min(len(value) for value in values[0].values()) >= 43  # 256 bits
    assert first.stat().st_mode & 0o777 == second.stat().st_mode & 0o777 == 0o600
    assert not [value for value in made if value in " ".join(told)]
    before = first.read_bytes()
    assert "nothing was changed" in write_secrets(first)
    assert first.read_bytes() == before


def test_the_file_of_secrets_is_neither_committed_nor_sent_to_a_build() -> None:
    ignored = subprocess.run(["git", "check-ignore", ".env"], cwd=ROOT, capture_output=True, check=False)
    if ignored.returncode == 128:
        pytest.skip("no git repository")
    assert ignored.returncode == 0
    sent = (ROOT / ".dockerignore").read_text().splitlines()
    assert sent[1] == "*"
    assert not [line for line in sent if line.startswith("!") and ".env" in line]


def test_images_are_pinned(services: dict[str, Any]) -> None:
    bases = [re.findall(r"^FROM (\S+)", path.read_text(), re.MULTILINE) for path in dockerfiles()]
    images = [service["image"] for service in services.values()]
    for image in [*images, *(image for found in bases for image in found)]:
        assert PINNED.fullmatch(image), image


def dockerfiles() -> list[Path]:
    return [ROOT / "Dockerfile", ROOT / "deploy/objects.Dockerfile"]


def test_no_container_runs_as_root(services: dict[str, Any]) -> None:
    for path in dockerfiles():
        users = re.findall(r"^USER (\S+)", path.read_text(), re.MULTILINE)
        assert users
        assert users[-1] not in ("root", "0"), path.name
    for name, service in services.items():
        assert "build" in service or service.get("user") not in (None, "root", "0"), name


def test_every_service_is_checked_and_waits_for_what_it_needs(services: dict[str, Any]) -> None:
    for name, service in services.items():
        once = name == "provision"
        assert service["healthcheck"] == {"disable": True} if once else service["healthcheck"]["test"], name
        for needed, how in service.get("depends_on", {}).items():
            assert how["condition"] == (
                "service_completed_successfully" if needed == "provision" else "service_healthy"
            )
    assert set(services["worker"]["depends_on"]) == {"head"}


def test_ports_are_open_to_this_machine_only(services: dict[str, Any]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert len(ports) == 2
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_a_worker_is_told_its_share_of_the_machine_and_has_a_disk_of_its_own(secrets: dict[str, str]) -> None:
    given = {"WORKER_CPUS": "3", "WORKER_GPUS": "2", "WORKER_MEMORY": "9g"}
    worker = fill(load()["services"]["worker"], secrets | given)
    assert {"--num-cpus=3", "--num-gpus=2"} <= set(command(worker))
    assert worker["deploy"]["resources"]["limits"] == {"cpus": "3", "memory": "9g"}
    assert "/orch" in worker["volumes"]  # an anonymous volume: one for each container
    with_gpus = fill(load(*FILES[1])["services"]["worker"], secrets | given)
    assert with_gpus["scale"] == 1
    assert with_gpus["deploy"]["resources"]["limits"] == {"cpus": "3", "memory": "9g"}
    assert with_gpus["deploy"]["resources"]["reservations"]["devices"][0]["count"] == "2"


def test_drivers_and_workers_have_no_administrators_credentials(services: dict[str, Any]) -> None:
    for name in ("head", "worker"):
        assert not [variable for variable in services[name]["environment"] if "ADMIN" in variable]
        assert services[name]["environment"]["MLFLOW_TRACKING_USERNAME"] == "orch"


def test_the_packages_of_the_image_are_locked_with_hashes_at_the_versions_that_were_tested() -> None:
    text = (ROOT / "requirements.lock").read_text()
    locked = dict(re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE))
    tested = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    for block in re.split(r"\n(?=[a-zA-Z])", text.partition("\n#    make lock\n")[2]):
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", block), block
    canonical = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in tested.items()}
    differing = {name: version for name, version in locked.items() if canonical.get(name, version) != version}
    assert not differing
    assert {"mlflow", "ray", "torch", "boto3", "psycopg2-binary", "flask-wtf", "setuptools"} <= set(locked)
    assert "--require-hashes" in (ROOT / "Dockerfile").read_text()
