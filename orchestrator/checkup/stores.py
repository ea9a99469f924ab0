"""Checks the tracking store, the store of artifacts and the object store, from this machine."""

from __future__ import annotations

import os
import re
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from pathlib import Path
from urllib.parse import unquote, urlsplit
from uuid import uuid4

from orchestrator.checkup.result import Checked, Level, bad, bounded, compare_clocks, failed, ok, warning
from orchestrator.ledger import opening, store
from orchestrator.ledger.experiment import NoExperiment
from orchestrator.settings import Settings
from schemas.errors import ObjectConflict, OrchError, StoreError
from workers.files import sha256_of
from workers.objects.base import ABSENT, ObjectStore, open_objects
from workers.objects.s3 import endpoint_from
from workers.tracking.access import without_password

CONNECT_SECONDS = 5.0
"""Longest time until a server accepts a connection."""
SPEED_BYTES = 8 * 2**20
"""Size of the file by which the speed of the object store is measured."""


def check_tracking(settings: Settings) -> Iterator[Checked]:
    """Check that the tracking store answers, is MLflow, accepts our credentials, and has our version."""
    subject, uri = "tracking store", without_password(settings.store_uri)
    if settings.store_uri.startswith("sqlite:") and settings.ray_address != "local":
        text = "a file of this machine, which other nodes cannot use. Set ORCH_TRACKING_URI to an MLflow server."
        yield warning(subject, text)
    if settings.database is not None and not settings.database.exists():
        yield ok(subject, f"none yet at {settings.database}; the first sweep creates it")
        return
    if uri.startswith(("http://", "https://")):
        yield from _check_server(settings.store_uri)
    try:
        sweeps = opening.open_existing(settings).sweeps() if settings.database is None else _sweeps_here(settings)
        yield ok(subject, f"{uri}: its versions fit, {len(sweeps)} sweep{'' if len(sweeps) == 1 else 's'}")
    except NoExperiment:
        yield ok(subject, f"{uri}: no sweep yet; the first one creates orch's experiment")


def _sweeps_here(settings: Settings) -> list[object]:
    return list(opening.open_reader(settings).sweeps())


def _check_server(uri: str) -> Iterator[Checked]:
    """Check what answers at an HTTP address.

    Raises:
        StoreError: it is no MLflow server, or nothing answers.
    """
    import requests

    knock(uri, "ORCH_TRACKING_URI")
    address = uri.rstrip("/")
    began = time.time()
    try:
        health = requests.get(f"{address}/health", timeout=(CONNECT_SECONDS, CONNECT_SECONDS))
    except requests.RequestException as error:
        raise StoreError(
            f"What listens at {without_password(uri)} does not answer as an MLflow server ({type(error).__name__}). "
            "Correct ORCH_TRACKING_URI, or see whether that server is overloaded."
        ) from error
    answered = time.time()
    if health.status_code != 200 or health.text.strip() != "OK":
        raise StoreError(
            f"What answers at {without_password(uri)} is no MLflow server (status {health.status_code} for /health). "
            "Correct ORCH_TRACKING_URI."
        )
    shown = requests.get(f"{address}/version", timeout=(CONNECT_SECONDS, CONNECT_SECONDS)).text.strip()
    theirs = shown if re.fullmatch(r"\d+(\.\w+)+", shown) else ""  # behind authentication it may not say
    ours = version("mlflow")
    text = f"MLflow {theirs or 'of unknown version'} at {without_password(uri)}, {(answered - began) * 1000:.0f} ms"
    if theirs and theirs.split(".")[:2] != ours.split(".")[:2]:
        yield warning("tracking server", f"{text}; here it is MLflow {ours}. Install the same version on both.")
    else:
        yield ok("tracking server", text)
    if date := health.headers.get("Date"):
        yield compare_clocks("the tracking server", _seconds(date), answered)


def knock(uri: str, setting: str) -> None:
    """Check that a port accepts connections.

    Args:
        uri: the address.
        setting: the variable that names it.

    Raises:
        StoreError: the host is unknown, or refuses or does not answer.
    """
    parts = urlsplit(uri)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), timeout=CONNECT_SECONDS).close()
    except socket.gaierror as error:
        raise StoreError(f"No host is called {parts.hostname!r} here. Correct {setting}.") from error
    except OSError as error:
        why = error.strerror or str(error)
        raise StoreError(
            f"Nothing answers at {parts.hostname}:{port} ({why}). Start it, open that port, or correct {setting}."
        ) from error


def _seconds(date: str) -> float:
    return parsedate_to_datetime(date).timestamp() + 0.5  # it is cut to a second


def check_artifacts(settings: Settings) -> Iterator[Checked]:
    """Check that the files of runs can be listed from here. Before the first sweep their place is not known."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    subject = "artifacts"
    try:
        client = store.open_client(settings)
    except NoExperiment:
        yield ok(subject, "none yet: their place is chosen when the first sweep begins")
        return
    place = client.here.uri(store.experiment_of(client, settings.store_uri).location)
    shown, parts = without_password(place), urlsplit(place)
    if parts.scheme in ("", "file"):
        yield _check_folder(settings, Path(unquote(parts.path)))
        return
    with store.reaching(settings.store_uri):
        get_artifact_repository(place, tracking_uri=settings.store_uri).list_artifacts()
    yield ok(subject, f"{shown} can be listed")


def _check_folder(settings: Settings, folder: Path) -> Checked:
    if folder.is_dir() or settings.database is not None:
        return ok("artifacts", f"in {folder}")
    return bad(
        "artifacts",
        f"The server keeps them in its own folder {folder}, which is not on this machine. Start it with "
        "`--artifacts-destination`, and without `--no-serve-artifacts`, so that clients send files to it.",
    )


def check_objects(settings: Settings) -> Iterator[Checked]:
    """Write, read and delete a probe in the object store, and measure its speed."""
    subject, uri = "object store", settings.object_store
    if uri is None:
        if settings.ray_address != "local":
            yield warning(
                subject, "none: a job of a node that is lost starts again. Set ORCH_OBJECT_STORE=s3://BUCKET/PREFIX."
            )
        return
    if uri.startswith("s3:"):
        knock(endpoint_from() or "https://s3.amazonaws.com", "AWS_ENDPOINT_URL_S3")
    objects = open_objects(uri)
    key = f"doctor/{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
    try:
        yield from _exercise(objects, key)
    finally:
        objects.delete([f"{key}.json", f"{key}.bin"])
    if uri.startswith("s3:"):
        yield from _check_clock(endpoint_from() or "https://s3.amazonaws.com")


def _exercise(objects: ObjectStore, key: str) -> Iterator[Checked]:
    subject = "object store"
    objects.write(f"{key}.json", b"{}", ABSENT)
    try:
        objects.write(f"{key}.json", b"[]", ABSENT)
        yield warning(subject, f"{objects.where} has no conditional writes, so two machines may overwrite each other")
    except ObjectConflict:
        pass
    with tempfile.TemporaryDirectory(prefix="orch-") as folder:
        source, target = Path(folder, "probe.bin"), Path(folder, "again.bin")
        source.write_bytes(os.urandom(SPEED_BYTES))
        began = time.monotonic()
        objects.put(f"{key}.bin", source, sha256_of(source))
        sent = time.monotonic()
        objects.get(f"{key}.bin", target, sha256_of(source))
        got = time.monotonic()
    megabytes = SPEED_BYTES / 1e6
    speeds = f"{megabytes / (sent - began):.0f} MB/s up, {megabytes / (got - sent):.0f} MB/s down"
    yield ok(subject, f"{objects.where}: written, read and deleted; {speeds}")


def _check_clock(endpoint: str) -> Iterator[Checked]:
    import requests

    answer = requests.head(endpoint, timeout=(CONNECT_SECONDS, CONNECT_SECONDS), allow_redirects=False)
    if date := answer.headers.get("Date"):
        yield compare_clocks("the object store", _seconds(date), time.time())


def check_stores(settings: Settings) -> Iterator[Checked]:
    """Carry out the checks of all stores, each within its time. One that fails does not hide the others."""
    store.quiet_mlflow()
    tracking = _within("tracking store", check_tracking, settings, "Another program may be behind that port.")
    yield from tracking
    if any(one.level is Level.BAD for one in tracking):
        yield warning("artifacts", "not checked, because the tracking store cannot be used")
    else:
        yield from _within("artifacts", check_artifacts, settings, "The store behind the tracking server may be away.")
    yield from _within("object store", check_objects, settings, "Check its endpoint (AWS_ENDPOINT_URL_S3).")


def _within(
    subject: str, check: Callable[[Settings], Iterator[Checked]], settings: Settings, hint: str
) -> list[Checked]:
    def until_error() -> Iterator[Checked]:
        try:
            yield from check(settings)
        except OrchError as error:  # which does not hide what was found before
            yield failed(subject, error)

    return bounded(subject, until_error, hint)
