"""What `orch data` does: counts, opens, prepares and draws the pictures that networks would see."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.planning.request import find_profile
from orchestrator.settings import Settings
from schemas.categories import CATEGORIES, find_categories
from schemas.errors import DataError, Interrupted
from schemas.order import ReportProgress

if TYPE_CHECKING:
    from workers.data.inventory import Inventory
    from workers.data.verify import Verified


@dataclass(frozen=True)
class PreparedCategory:
    """The pictures of one category at one size."""

    category: str
    size: int
    pictures: int
    part_maps: int
    skipped: tuple[str, ...]
    seconds: float


def categories_named(words: Sequence[str]) -> tuple[str, ...]:
    """Ids of the categories that a user's words name; none where there are no words."""
    return tuple(dict.fromkeys(category.id for word in words for category in find_categories(word)))


def list_data(settings: Settings, data_root: Path) -> Inventory:
    """
    Raises:
        DataError: the root is no folder.
    """
    from workers.data.inventory import take_inventory
    from workers.data.readers.sources import layouts

    if not data_root.is_dir():
        raise DataError(f"The data root {data_root} is not a folder. Check `--data-root`. {layouts()}")
    return take_inventory(data_root, _existing_cache(settings))


def verify_data(
    settings: Settings, data_root: Path | None, categories: Sequence[str], advance: ReportProgress
) -> list[Verified]:
    """
    Raises:
        DataError: there is no data root, or no data set under it.
    """
    from workers.data.readers.sources import data_root_or_error
    from workers.data.verify import verify

    return verify(data_root_or_error(data_root), categories, _existing_cache(settings), advance)


def raise_if_flawed(found: Sequence[Verified]) -> None:
    """
    Raises:
        DataError: a file is missing, broken, or contradicts its annotation.
    """
    flaws = [flaw for one in found for flaw in one.flaws]
    if flaws:
        files = len({flaw.path for flaw in flaws})
        raise DataError(
            f"{files} file{'s' if files > 1 else ''} cannot be used as they are: restore them from the data set's "
            "archive, or remove their annotations. A few unreadable photographs are passed over by jobs and counted."
        )


def sizes_of(profile: str) -> tuple[int, ...]:
    """Sides of the square inputs that a profile's networks take."""
    found = find_profile(profile)
    sides = [found.base["model"]["input_size"], *(rule.set.get("model.input_size") for rule in found.rules)]
    return tuple(dict.fromkeys(side for side in sides if side))


def prepare_data(
    settings: Settings, data_root: Path | None, categories: Sequence[str], sizes: Sequence[int], advance: ReportProgress
) -> list[PreparedCategory]:
    """Decode and crop what jobs would, into the cache that they share; what is there already is kept.

    Args:
        categories: ids; none means all that are there, and the folder of negatives.

    Raises:
        DataError: there is no data root, none of the categories is under it, or too many photographs are broken.
        Interrupted: the user stopped it; what is done stays.
    """
    from workers.data.readers.sources import NEGATIVES, data_root_or_error, negative_images, present_categories

    root = data_root_or_error(data_root)
    present = present_categories(root)
    chosen = [name for name in categories if name in present] if categories else list(present)
    if not chosen:
        raise DataError(f"None of {', '.join(categories)} is under {root}. `orch data list` shows what is.")
    if negative_images(root):
        chosen.append(NEGATIVES)
    try:
        return [_prepare(settings, root, name, size, advance) for size in sizes for name in chosen]
    except KeyboardInterrupt:
        raise Interrupted("Stopped. What is prepared stays: the same command goes on from there.") from None


def _prepare(settings: Settings, root: Path, category: str, size: int, advance: ReportProgress) -> PreparedCategory:
    from workers.data.prepared.photographs import have_masks, part_set, photograph_set
    from workers.data.readers.sources import NEGATIVES, negative_folder, records_of

    start = time.monotonic()
    cache = settings.cache_dir
    records = negative_folder(root) if category == NEGATIVES else records_of(category, root, cache)
    what = f"{category} {size} px"
    advance(what, 0, len(records))
    found = photograph_set(category, records, size, cache, _quiet, lambda done: advance(what, done, len(records)))
    maps = 0
    if category != NEGATIVES and have_masks(records):
        what = f"{category} {size} px, part masks"
        parts = part_set(category, records, found, cache, _quiet, lambda done: advance(what, done, len(found.items)))
        maps = len(parts.items)
    return PreparedCategory(category, size, len(found.items), maps, found.skipped, time.monotonic() - start)


def _quiet(said: str) -> None:
    """The bar says how far it is."""


def show_data(
    settings: Settings, categories: Sequence[str], data_root: Path | None, out: Path, *, per_category: int, size: int
) -> Path:
    """Write a contact sheet of generated animals, or of photographs where there is a data root.

    Args:
        categories: ids; none means all that are there.
    """
    from workers.data.contact_sheet import generated_sheet, photograph_sheet, write_contact_sheet

    chosen = categories or [category.id for category in CATEGORIES]
    if data_root is None:
        sheet = generated_sheet(chosen, per_category=per_category, size=size)
    else:
        cache = _existing_cache(settings)
        sheet = photograph_sheet(chosen, data_root, per_category=per_category, size=size, cache_dir=cache)
    write_contact_sheet(out, sheet)
    return out


def _existing_cache(settings: Settings) -> Path | None:
    """Looking makes no folders."""
    return settings.cache_dir if settings.cache_dir.is_dir() else None
