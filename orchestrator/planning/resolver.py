"""Looks up for planning what only the disk knows: digests of data and weights, and whether they fit the jobs."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.settings import Settings
from schemas.errors import WeightsError
from schemas.job import DataSpec, FileWeights, JobSpec
from workers.files import sha256_of

if TYPE_CHECKING:
    from workers.data.data_root import DataRoot


class DiskResolver:
    """Opens the data root once, and computes each digest once however many jobs share it."""

    def __init__(self, data_root: Path | None, cache_dir: Path | None) -> None:
        """Make a resolver; the data root is opened when a job on photographs is met.

        Args:
            data_root: folder of the photographs; None where all images are generated.
            cache_dir: keeps digests between processes; None writes nothing.
        """
        self._data_root = data_root
        self._cache_dir = cache_dir
        self._weights: dict[str, str] = {}

    @cached_property
    def _root(self) -> DataRoot:
        from workers.data.data_root import DataRoot

        return DataRoot.open(self._data_root, self._cache_dir)

    def data_digest(self, data: DataSpec) -> str:
        """Return the digest of every image and annotation that may enter a job.

        Raises:
            DataError: there is no usable data root, or an annotation file cannot be understood.
        """
        from workers.data.checks import data_digest, generated_digest

        return generated_digest() if data.images == "generated" else data_digest(data, self._root)

    def label_names(self, data: DataSpec) -> tuple[str, ...]:
        """Return one name per output where labels are species; else empty.

        Raises:
            DataError: as `data_digest`.
        """
        if data.labels == "categories":
            return ()
        from workers.data.readers.species import label_names

        return label_names(data, self._root.records)

    def weights_digest(self, path: str) -> str:
        """Return the SHA-256 of a weights file.

        Raises:
            WeightsError: the file cannot be read.
        """
        if path not in self._weights:
            self._weights[path] = _sha256(Path(path))
        return self._weights[path]

    def weights_label(self, path: str) -> str:
        """Return the name that a weights file was imported under; empty for a file without provenance."""
        from workers.weights.weight_file import read_provenance

        provenance = read_provenance(Path(path))
        return provenance.label if provenance else ""

    def check_data(self, jobs: Iterable[JobSpec]) -> None:
        """Check that the photographs can carry the jobs, with all missing categories in one message.

        Raises:
            DataError: there is no usable data root, or its images are too few, unreadable, or contradict annotations.
        """
        from workers.data.checks import check_data

        each = {data.model_dump_json(): data for job in jobs if (data := job.data).images == "photographs"}
        alike: dict[str, list[DataSpec]] = {}
        for data in each.values():
            other_fields = data.model_copy(update={"categories": (), "digest": ""})
            alike.setdefault(other_fields.model_dump_json(), []).append(data)
        for group in alike.values():
            names = tuple(dict.fromkeys(name for data in group for name in data.categories))
            check_data(group[0].model_copy(update={"categories": names}), self._root)
        for data in each.values():
            check_data(data, self._root)


def resolver_for(settings: Settings, data_root: str | None) -> DiskResolver:
    """Return a resolver for planning, which makes no folders: it uses the cache only where the cache exists."""
    cache = settings.cache_dir if settings.cache_dir.is_dir() else None
    return DiskResolver(Path(data_root) if data_root else None, cache)


def check_all_weights(jobs: Iterable[JobSpec]) -> None:
    """Check before any work that imported weights fit the jobs; jobs check files without provenance themselves.

    Raises:
        WeightsError: the backbone or the width differs.
    """
    from workers.weights.weight_file import read_provenance

    for path, backbone, width in {
        (job.weights.path, job.model.backbone, job.model.width) for job in jobs if isinstance(job.weights, FileWeights)
    }:
        found = read_provenance(Path(path))
        if found is not None and (found.backbone, found.width) != (backbone, width):
            raise WeightsError(
                f"The weights {path} are for {found.backbone} at width {found.width:g}, but jobs with {backbone} at "
                f"width {width:g} start from them. Narrow the sweep with `--backbone {found.backbone} --set "
                f"model.width={found.width:g}`, or name other `--weights`."
            )


def check_all_data(jobs: Iterable[JobSpec], data_root: str | None, cache_dir: Path | None) -> None:
    """Open a data root and check that its photographs can carry the jobs.

    Raises:
        DataError: as `DiskResolver.check_data`.
    """
    DiskResolver(Path(data_root) if data_root else None, cache_dir).check_data(jobs)


def _sha256(path: Path) -> str:
    from workers.data.disk_files import unusual_kind

    try:
        if kind := unusual_kind(path):
            raise OSError(f"{kind}, not a file")
        return sha256_of(path)
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"The weights file {path} cannot be read ({getattr(error, 'strerror', None) or error}). "
            "Give the path of a file that torch saved."
        ) from error
