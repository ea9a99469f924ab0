"""Upload and download through our object store beside a plain boto3 copy: `python -m benchmarks.object_store`.

Uses the store of ORCH_OBJECT_STORE (an S3 one), or else a SeaweedFS or moto server that it starts and stops.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from uuid import uuid4

from tests.support.object_store import BUCKET, ObjectStore
from tests.support.seaweed import SeaweedFS, weed
from workers.objects.s3 import S3Objects, endpoint_from


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """Give the URI of the store to measure, started for the occasion if the environment names none."""
    if uri := os.environ.get("ORCH_OBJECT_STORE"):
        yield uri
        return
    started = SeaweedFS(folder / "seaweed") if weed() else ObjectStore()
    os.environ.update(started.environment)
    print(f"server: {type(started).__name__} on this machine")
    try:
        yield f"s3://{BUCKET}/benchmark"
    finally:
        started.stop()


def seconds(call: Callable[[], object]) -> float:
    """Return how long a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def main() -> None:
    """Print the median rates in MB/s and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with TemporaryDirectory() as name, server(Path(name)) as uri:
        import boto3

        folder, size = Path(name), options.megabytes * 10**6
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        key = f"benchmark-{uuid4().hex}"
        ours, plain = S3Objects(bucket, prefix), boto3.client("s3", endpoint_url=endpoint_from())
        source = folder / "source"
        source.write_bytes(os.urandom(size))
        sha256 = hashlib.sha256(source.read_bytes()).hexdigest()
        plain_key = f"{prefix}/{key}-plain"
        times: dict[str, list[float]] = {"upload": [], "plain upload": [], "download": [], "plain download": []}
        for _ in range(options.rounds):
            target = folder / "target"
            times["plain upload"].append(seconds(lambda: plain.upload_file(str(source), bucket, plain_key)))
            times["upload"].append(seconds(lambda: ours.put(key, source, sha256)))
            times["plain download"].append(
                seconds(lambda path=target: plain.download_file(bucket, plain_key, str(path)))  # type: ignore[misc]
            )
            times["download"].append(seconds(lambda path=target: ours.get(key, path, sha256)))  # type: ignore[misc]
        ours.delete([key, f"{key}-plain"])
        rates = {what: options.megabytes / median(taken) for what, taken in times.items()}
        for what in ("upload", "download"):
            ratio = rates[what] / rates[f"plain {what}"]
            print(f"{what}: {rates[what]:.0f} MB/s with digest, plain boto3 {rates[f'plain {what}']:.0f} MB/s, "
                  f"ratio {ratio:.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
