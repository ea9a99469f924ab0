"""What planning asks of the disk: digests of data and weights, and whether the data can carry the jobs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.settings import Settings
from schemas.errors import WeightsError
from schemas.job import DataSpec, FileWeights, JobSpec
from workers.files import sha256_of


@dataclass
class DiskResolver:
    """Each digest is taken once, however many jobs share it."""

    data_root: Path | None
    cache_dir: Path | None
    """For remembering digests; None where nothing may be written."""
    _data: dict[str, str] = field(default_factory=dict)
    _weights: dict[str, str] = field(default_factory=dict)

    def data_digest(self, data: DataSpec) -> str:
        from workers.data.checks import data_digest

        key = data.model_dump_json()
        if key not in self._data:
            self._data[key] = data_digest(data, self.data_root, cache_dir=self.cache_dir)
        return self._data[key]

    def label_names(self, data: DataSpec) -> tuple[str, ...]:
        if data.labels == "categories":
            return ()
        from workers.data.readers.sources import data_root_or_error
        from workers.data.readers.species import label_names

        return label_names(data, data_root_or_error(self.data_root), self.cache_dir)

    def weights_digest(self, path: str) -> str:
        if path not in self._weights:
            self._weights[path] = _sha256(Path(path))
        return self._weights[path]

    def weights_label(self, path: str) -> str:
        from workers.weights.weight_file import read_provenance

        provenance = read_provenance(Path(path))
        return provenance.label if provenance else ""


def resolver_for(settings: Settings, data_root: str | None) -> DiskResolver:
    """Remembers digests only where there is an ORCH_HOME already: planning makes no folders."""
    cache = settings.cache_dir if settings.cache_dir.is_dir() else None
    return DiskResolver(Path(data_root) if data_root else None, cache)


def check_all_weights(jobs: Iterable[JobSpec]) -> None:
    """Refuse imported weights of another network before work starts; files without provenance are checked by the jobs.

    Raises:
        WeightsError: backbone or width differ.
    """
    from workers.weights.weight_file import read_provenance

    for path, backbone, width in {
        (job.weights.path, job.model.backbone, job.model.width) for job in jobs if isinstance(job.weights, FileWeights)
    }:
        found = read_provenance(Path(path))
        if found is not None and (found.backbone, found.width) != (backbone, width):
            raise WeightsError(
                f"The weights {path} are of {found.backbone} at width {found.width:g}, but jobs of {backbone} at width "
                f"{width:g} were to start from them. Narrow the sweep with `--backbone {found.backbone} --set "
                f"model.width={found.width:g}`, or name other `--weights`."
            )


def check_all_data(jobs: Iterable[JobSpec], data_root: str | None, cache_dir: Path | None) -> None:
    """Refuse data that cannot carry the jobs, all categories in one message.

    Raises:
        DataError: no data root, too few images, or broken ones.
    """
    from workers.data.checks import check_data

    root = Path(data_root) if data_root else None
    each = {data.model_dump_json(): data for job in jobs if (data := job.data).images == "photographs"}
    alike: dict[str, list[DataSpec]] = {}
    for data in each.values():
        alike.setdefault(data.model_copy(update={"categories": (), "digest": ""}).model_dump_json(), []).append(data)
    for group in alike.values():
        names = tuple(dict.fromkeys(name for data in group for name in data.categories))
        check_data(group[0].model_copy(update={"categories": names}), root, cache_dir=cache_dir)
    for data in each.values():
        check_data(data, root, cache_dir=cache_dir)


def _sha256(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise WeightsError(
            f"The weights file {path} cannot be read ({error.strerror or error}). "
            "Give the path of a file that torch saved."
        ) from error
