"""The command `orch data import`: makes a data set of a user's own photographs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from schemas.errors import Interrupted, SpecError
from schemas.order import ReportProgress

if TYPE_CHECKING:
    from workers.data.importing.storing import Imported, Sources


def import_data(
    sources: Sources, name: str, data_root: Path | None, *, replace: bool, advance: ReportProgress
) -> Imported:
    """Import a user's own photographs into a data root.

    Args:
        sources: the photographs and their annotations.
        name: of the new data set.
        data_root: receives the data set.
        replace: replace an imported data set of this name.
        advance: receives progress.

    Raises:
        SpecError: there is no data root, or the name cannot be used.
        DataError: a photograph or an annotation cannot be used. Nothing is imported then.
        StoreError: the data root cannot be written.
        Interrupted: the user stopped the command. Nothing is imported then.
    """
    from workers.data.importing.storing import import_data as do_import

    if data_root is None:
        raise SpecError("The data set needs a place. Pass `--data-root FOLDER`, or set ORCH_DATA_ROOT.")
    try:
        return do_import(sources, name, data_root, replace_old=replace, advance=advance)
    except KeyboardInterrupt:
        raise Interrupted("Stopped. Nothing was imported.") from None
