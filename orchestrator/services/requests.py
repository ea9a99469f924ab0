"""Turns what a user asks for, on the command line or in Python, into a request for a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.planning.request import SweepRequest, unknown_dataset
from orchestrator.planning.sweep_file import STDIN
from orchestrator.services.weights import weights_field
from orchestrator.settings import Settings
from schemas.categories import DATASETS, category_of
from schemas.errors import SpecError
from schemas.sweep import SweepSpec


def make_request(
    settings: Settings, sweep: SweepSpec, file: Path | None, *, name: str | None = None, profile: str | None = None,
    categories: Sequence[str] = (), backbones: Sequence[str] = (), variants: Sequence[str] = (),
    datasets: Sequence[str] = (), sets: Mapping[str, Any] | None = None, weights: str | None = None,
    data_root: str | Path | None = None,
) -> SweepRequest:  # fmt: skip
    """Return the request for a sweep, with the weights and the imported data sets that it may use.

    Args:
        settings: give the defaults.
        sweep: the grid, or what the sweep file says.
        file: the sweep file, or `STDIN`; None for a grid.
        name: of the sweep.
        profile: its profile.
        categories: only these.
        backbones: only these.
        variants: only these.
        datasets: only categories of these.
        sets: field -> value, for every job.
        weights: a source, a name of imported weights, or a file.
        data_root: folder of the photographs; None takes that of the settings.

    Raises:
        SpecError: a data set is unknown, or the folder cannot be used as written.
        WeightsError: there are no such weights.
        DataError: the description of an imported data set cannot be understood.
    """
    root = folder(Path(data_root) if data_root else settings.data_root)
    imported = imported_under(root)
    own = {category_of(id_).dataset: None for id_ in imported}
    for word in datasets:
        if word.strip().lower() not in (*DATASETS, *own):
            raise unknown_dataset(word, own)
    return SweepRequest(
        sweep=sweep,
        file_stem="stdin" if file == STDIN else file.stem if file else None,
        name=name,
        profile=profile,
        categories=tuple(categories),
        backbones=tuple(backbones),
        variants=tuple(variants),
        datasets=tuple(datasets),
        sets={**(sets or {}), **weights_field(settings, weights)},
        data_root=str(root) if root else None,
        imported=imported,
        default_profile=settings.profile,
        folder=file.absolute().parent if file else None,
        set_folder=Path.cwd(),
    )


def folder(path: Path | None, option: str = "--data-root") -> Path | None:
    """Return the absolute path of a folder that an option or a setting names.

    Raises:
        SpecError: it begins with the home folder of a user that does not exist.
    """
    try:
        return path.expanduser().resolve() if path else None
    except RuntimeError as error:
        raise SpecError(f"`{option}` is {str(path)!r}: no such home folder. Give the path without `~`.") from error


def imported_under(root: Path | None) -> tuple[str, ...]:
    """Return the ids of the imported categories under a data root; none without one.

    Raises:
        DataError: the description of an imported data set cannot be understood.
    """
    from workers.data.readers.imported import imported_categories

    return imported_categories(root) if root is not None else ()
