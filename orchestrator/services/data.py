"""The `orch data` commands: count, verify, prepare and draw the pictures that networks see."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.planning.request import find_profile
from orchestrator.settings import Settings
from schemas.categories import CATEGORIES, find_categories
from schemas.errors import DataError, Interrupted, SpecError
from schemas.order import ReportProgress

if TYPE_CHECKING:
    from workers.data.data_root import DataRoot
    from workers.data.inventory import Inventory
    from workers.data.pushed.description import Head
    from workers.data.pushed.pushing import Pushed
    from workers.data.verify import Verified
    from workers.objects.base import ObjectStore


@dataclass(frozen=True)
class PreparedCategory:
    """Prepared pictures of one category at one size."""

    category: str
    size: int
    """Side of a picture, in pixels."""
    pictures: int
    part_maps: int
    skipped: tuple[str, ...]
    """Names of photographs that could not be read."""
    seconds: float


def categories_named(words: Sequence[str], data_root: Path | None) -> tuple[str, ...]:
    """Return the ids of the categories that a user's words name, those of imported data sets included."""
    from workers.data.readers.imported import imported_categories

    own = imported_categories(data_root) if data_root is not None and words else ()
    return tuple(dict.fromkeys(category.id for word in words for category in find_categories(word, own)))


def list_data(settings: Settings, data_root: Path) -> Inventory:
    """Return the counts of everything under a data root.

    Raises:
        DataError: the root is not a folder.
    """
    from workers.data.data_root import DataRoot
    from workers.data.inventory import take_inventory

    return take_inventory(DataRoot.open(data_root, _existing_cache(settings), may_be_empty=True))


def raise_if_empty(found: Inventory, data_root: Path) -> None:
    """Raise an error if nothing under a data root can be used.

    Raises:
        DataError: neither objects nor negatives were found.
    """
    from workers.data.disk_files import printable
    from workers.data.inventory import some

    if found.is_empty:
        named = some([str(path.relative_to(data_root)) for path in found.unused])
        others = some([str(path.relative_to(data_root)) for path in found.unknown])
        raise DataError(
            f"Nothing under {printable(data_root)} can be used"
            + (f"; these annotations belong to no category with photographs: {named}" if named else "")
            + (f"; of no data set: {others}" if others else "")
            + ". The list names the files that are looked for. Of your own photographs, make a data set: orch data "
            "import FOLDER --name NAME"
        )


def verify_data(
    settings: Settings, data_root: Path | None, categories: Sequence[str], advance: ReportProgress
) -> list[Verified]:
    """Open every file of some categories and return what is wrong with them.

    Args:
        categories: ids; empty for all that are present.
        advance: receives progress, per category.

    Raises:
        DataError: there is no data root, or no data set under it.
    """
    from workers.data.data_root import DataRoot
    from workers.data.verify import verify

    return verify(DataRoot.open(data_root, _existing_cache(settings)), categories, advance)


def raise_if_flawed(found: Sequence[Verified]) -> None:
    """Raise an error if any file of the verified categories is flawed.

    Raises:
        DataError: a file is missing, broken, or contradicts its annotation.
    """
    flaws = [flaw for one in found for flaw in one.flaws]
    if flaws:
        files = len({flaw.path for flaw in flaws})
        raise DataError(
            f"{files} file{'s' if files > 1 else ''} cannot be used: restore {'them' if files > 1 else 'it'} from the "
            "data set's archive, or remove their annotations. Jobs skip and count a few unreadable photographs."
        )


def sizes_of(profile: str) -> tuple[int, ...]:
    """Return the sides of the square inputs of a profile's networks, in pixels."""
    found = find_profile(profile)
    sides = [found.base["model"]["input_size"], *(rule.set.get("model.input_size") for rule in found.rules)]
    return tuple(dict.fromkeys(side for side in sides if side))


def prepare_data(
    settings: Settings, data_root: Path | None, categories: Sequence[str], sizes: Sequence[int], advance: ReportProgress
) -> list[PreparedCategory]:
    """Decode and crop photographs into the cache that jobs share; prepared ones are kept.

    Args:
        categories: ids; empty for all photographs under the data root. The folder of negatives is always prepared.
        sizes: sides of the pictures, in pixels.
        advance: receives progress, per category and size.

    Raises:
        DataError: there is no data root, none of the categories is under it, an annotation cannot be read or
            contradicts its image, or too many photographs are broken.
        Interrupted: the user stopped the command; prepared pictures are kept.
    """
    from workers.data.checks import check_category
    from workers.data.data_root import DataRoot
    from workers.data.readers.sources import NEGATIVES

    root = DataRoot.open(data_root, settings.cache_dir)
    present = root.present_categories()
    chosen = [name for name in categories if name in present]
    if not (chosen if categories else present):
        raise DataError(f"None of {', '.join(categories)} is under {root.path}. `orch data list` shows what is.")
    negatives = {NEGATIVES, *root.imported_negatives()}
    chosen = [name for name in root.stocks() if name in chosen or name in negatives or not categories]
    for name in chosen:
        check_category(name, root)
    try:
        return [_prepare(root, name, size, advance) for size in sizes for name in chosen]
    except KeyboardInterrupt:
        raise Interrupted("Stopped. Prepared pictures are kept: repeat the command to continue.") from None


def _prepare(root: DataRoot, category: str, size: int, advance: ReportProgress) -> PreparedCategory:
    from workers.data.prepared.photographs import have_masks, part_set, photograph_set

    start = time.monotonic()
    records = root.records(category)
    what = f"{category} {size} px"
    advance(what, 0, len(records))
    found = photograph_set(root, category, size, _quiet, lambda done: advance(what, done, len(records)))
    maps = 0
    if root.category(category).parts and have_masks(records):
        what = f"{category} {size} px, part masks"
        parts = part_set(root, category, found, _quiet, lambda done: advance(what, done, len(found.items)))
        maps = len(parts.items)
    return PreparedCategory(category, size, len(found.items), maps, found.skipped, time.monotonic() - start)


def _quiet(phase: str) -> None:
    """Ignore the phase: the progress bar shows it."""


def push_data(
    settings: Settings, data_root: Path | None, datasets: Sequence[str], sizes: Sequence[int],
    advance: ReportProgress,
) -> list[Pushed]:  # fmt: skip
    """Put prepared photographs into the object store, for machines that lack them; what is there is not sent again.

    Args:
        datasets: data sets; empty for all under the data root.
        sizes: sides of the pictures, in pixels.
        advance: receives progress, per category and size, and then in megabytes.

    Raises:
        SpecError: no object store is set.
        DataError: as `prepare_data`; or a data set is not under the data root.
        StoreError: the object store does not answer, or refuses.
        Interrupted: the user stopped the command; the next one goes on.
    """
    from workers.data.data_root import DataRoot
    from workers.data.pushed.pushing import push

    store = _open_store(settings)
    root = DataRoot.open(data_root, settings.cache_dir)

    def sent(done: int, total: int) -> None:
        advance("pushing, MB", done // 1_000_000, total // 1_000_000)

    try:
        return [
            push(
                root, name, tuple(sizes), lambda category, size: _prepare(root, category, size, advance), store,
                time.time(), sent,
            )
            for name in datasets or root.datasets()
        ]  # fmt: skip
    except KeyboardInterrupt:
        raise Interrupted("Stopped. What was pushed is kept: repeat the command to continue.") from None


def pushed_data(settings: Settings) -> tuple[str, dict[str, Head]]:
    """Return the address of the object store, and what is pushed of each data set.

    Raises:
        SpecError: no object store is set.
        StoreError: the object store does not answer, or refuses.
    """
    from workers.data.pushed.pulling import pushed_names, read_head

    store = _open_store(settings)
    found = {name: head for name in pushed_names(store) if (head := read_head(store, name)) is not None}
    return store.where, found


def _open_store(settings: Settings) -> ObjectStore:
    from workers.objects.base import open_objects

    if settings.object_store is None:
        raise SpecError("No object store is set. Set ORCH_OBJECT_STORE to s3://BUCKET/PREFIX or file:///FOLDER.")
    return open_objects(settings.object_store)


def show_data(
    settings: Settings, categories: Sequence[str], data_root: Path | None, out: Path, *, per_category: int, size: int
) -> Path:
    """Write a contact sheet of photographs, or of generated animals without a data root, and return its path.

    Args:
        categories: ids; empty for all.
        out: PNG file to write.
        per_category: pictures in a row.
        size: side of a picture, in pixels.

    Raises:
        DataError: no data set is under the data root, or none of the categories has photographs there.
        StoreError: the file cannot be written.
    """
    from workers.data.contact_sheet import generated_sheet, photograph_sheet, write_contact_sheet
    from workers.data.data_root import DataRoot

    if data_root is None:
        chosen = categories or [category.id for category in CATEGORIES]
        sheet = generated_sheet(chosen, per_category=per_category, size=size)
    else:
        root = DataRoot.open(data_root, _existing_cache(settings))
        sheet = photograph_sheet(categories or root.present_categories(), root, per_category=per_category, size=size)
    write_contact_sheet(out, sheet)
    return out


def _existing_cache(settings: Settings) -> Path | None:
    """Return the cache folder where it exists; commands that only read make no folders."""
    return settings.cache_dir if settings.cache_dir.is_dir() else None
