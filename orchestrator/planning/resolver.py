"""Looks up for planning what only the disk knows: digests of data and weights, and whether they fit the jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.settings import Settings
from schemas.categories import category_of
from schemas.errors import DataAbsent, WeightsError
from schemas.job import DataSpec, FileWeights, ImagenetWeights, JobSpec, TorchvisionWeights
from schemas.model_spec import foreign_name
from workers.files import sha256_of

if TYPE_CHECKING:
    from workers.data.data_root import DataRoot
    from workers.data.readers.records import AnnotatedObject


class DiskResolver:
    """Opens the data root once, and computes each digest once however many jobs share it."""

    def __init__(self, data_root: Path | None, cache_dir: Path | None, object_store: str | None = None) -> None:
        """Make a resolver; the data root is opened when a job on photographs is met.

        Args:
            data_root: folder of the photographs; None where all images are generated.
            cache_dir: keeps digests between processes; None writes nothing.
            object_store: URI of the store with what was pushed of data sets that the root lacks; None for none.
        """
        self._data_root = data_root
        self._cache_dir = cache_dir
        self._object_store = object_store
        self._weights: dict[str, str] = {}
        self._everything: dict[str, DataSpec] = {}
        self._pulled: dict[tuple[str, str], DataRoot] = {}

    @cached_property
    def _root(self) -> DataRoot:
        from workers.data.data_root import DataRoot

        return DataRoot.open(self._data_root, self._cache_dir)

    def _root_of(self, data: DataSpec, input_size: int | None = None) -> DataRoot:
        """Return the data root or, if it lacks the data set, what was pushed of it.

        Args:
            input_size: side of the pictures that must have been pushed, in pixels.
        """
        if self._object_store is None:
            return self._root
        from workers.data.pushed.pulling import PulledRoot, SharedData, check_present
        from workers.objects.base import open_objects

        try:
            check_present(data, self._root)
            return self._root
        except DataAbsent as absent:
            key = category_of(data.categories[0]).dataset, data.digest
            if key not in self._pulled:
                shared = SharedData(open_objects(self._object_store), patience=0.0, cache_bytes=0)
                self._pulled[key] = PulledRoot(data, None, shared, lambda _: None, absent)
            found = self._pulled[key]
            if input_size is not None and isinstance(found, PulledRoot):
                found.check_size(input_size)
            return found

    def data_digest(self, data: DataSpec) -> str:
        """Return the digest of every image and annotation that may enter a job.

        Raises:
            DataError: there is no usable data root, or an annotation file cannot be understood.
        """
        from workers.data.checks import data_digest, generated_digest

        return generated_digest() if data.images == "generated" else data_digest(data, self._root_of(data))

    def label_names(self, data: DataSpec) -> tuple[str, ...]:
        """Return one name per output where labels are species or kinds; else empty.

        Raises:
            DataError: as `data_digest`.
        """
        if data.labels != "species":
            return data.label_names
        from workers.data.readers.species import label_names

        return label_names(data, self._root_of(data).records)

    def everything(self, data: DataSpec) -> DataSpec:
        """Return the data of a pre-training on everything labelled, with the categories and kinds of the data root.

        Raises:
            DataError: as `data_digest`, or there are too few photographs.
        """
        from workers.data.everything import everything_of

        asked = data.model_dump_json()
        if asked not in self._everything:
            self._everything[asked] = everything_of(data, self._root_of(data))
        return self._everything[asked]

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

        needed = {
            (job.data.model_dump_json(), job.model.input_size): job.data
            for job in jobs
            if job.data.images == "photographs"
        }
        each = {one: (data, self._root_of(data, size)) for (one, size), data in needed.items()}
        alike: dict[tuple[str, DataRoot], list[DataSpec]] = {}
        for data, root in each.values():
            other_fields = data.model_copy(update={"categories": (), "digest": ""})
            alike.setdefault((other_fields.model_dump_json(), root), []).append(data)
        for (_, root), group in alike.items():
            names = tuple(dict.fromkeys(name for data in group for name in data.categories))
            check_data(group[0].model_copy(update={"categories": names}), root)
        for data, root in each.values():
            check_data(data, root)

    def unmeasurable(self, jobs: Iterable[JobSpec]) -> dict[str, tuple[str, ...]]:
        """Return the metrics that the photographs of some categories cannot have, with these categories.

        Part interpretability needs part masks of every object, location instability landmarks on two of them.

        Raises:
            DataError: as `data_digest`.
        """
        from workers.data.prepared.photographs import have_masks

        found: dict[str, dict[str, None]] = {"part_interpretability": {}, "location_instability": {}}
        needed = {
            (name, job.data.digest): job.data
            for job in jobs
            if job.data.images == "photographs"
            for name in job.data.categories
        }
        for (name, _), data in needed.items():
            root = self._root_of(data)
            records = root.records(name)
            if not have_masks(records):
                found["part_interpretability"][name] = None
            if not _has_landmark(records, root.category(name).landmarks):
                found["location_instability"][name] = None
        return {metric: tuple(names) for metric, names in found.items() if names}


def _has_landmark(records: Sequence[AnnotatedObject], landmarks: Sequence[str]) -> bool:
    """Whether two objects or more show one of the landmarks, which a deviation needs."""
    return any(sum(name in record.landmarks for record in records) >= 2 for name in landmarks)


def resolver_for(settings: Settings, data_root: str | None) -> DiskResolver:
    """Return a resolver for planning, which makes no folders: it uses the cache only where the cache exists."""
    cache = settings.cache_dir if settings.cache_dir.is_dir() else None
    return DiskResolver(Path(data_root) if data_root else None, cache, settings.object_store)


def check_all_weights(jobs: Iterable[JobSpec]) -> None:
    """Check before any work that imported weights fit the jobs; jobs check files without provenance themselves.

    Raises:
        WeightsError: the backbone or the width differs, or the package with the weights is not installed.
    """
    from workers.weights.weight_file import read_provenance

    jobs = list(jobs)
    for backbone in {job.model.backbone for job in jobs if isinstance(job.weights, ImagenetWeights)}:
        from interp_model.foreign.sources import packaged_weights

        if name := foreign_name(backbone):
            packaged_weights(name)
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


def push_all_weights(settings: Settings, jobs: Sequence[JobSpec], say: Callable[[str], None]) -> None:
    """Put the weights files that jobs start from into the object store, if one is set, once each.

    Args:
        say: receives a line for each file that is sent.

    Raises:
        WeightsError: a file is neither here nor in the store.
        StoreError: the store does not answer, or refuses.
    """
    weights = {job.weights.sha256: job.weights for job in jobs if isinstance(job.weights, FileWeights)}
    backbones = {job.model.backbone for job in jobs if isinstance(job.weights, TorchvisionWeights)}
    if settings.object_store is None or not (weights or backbones):
        return
    from workers.objects.base import open_objects
    from workers.training.shared_weights import push_file, push_torchvision

    store = open_objects(settings.object_store)
    sent = {one.path: push_file(store, one) for one in weights.values()}
    sent |= {f"of torchvision for {name}": push_torchvision(store, name) for name in sorted(backbones)}
    for name, size in sent.items():
        if size:
            say(f"pushed the weights {name} to {store.where} ({size / 1e6:.1f} MB)")


def check_all_data(settings: Settings, jobs: Iterable[JobSpec], data_root: str | None) -> None:
    """Check that the photographs of a data root, or what was pushed, can carry the jobs.

    Raises:
        DataError: as `DiskResolver.check_data`.
    """
    resolver = DiskResolver(Path(data_root) if data_root else None, settings.cache_dir, settings.object_store)
    resolver.check_data(jobs)


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
