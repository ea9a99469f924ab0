"""What `orch data` prints: tables for people, and the shapes of its `--json`.

orch data list --json      GeneratedJson without a data root, else InventoryJson
orch data verify --json    VerifyJson
orch data prepare --json   [PreparedJson, ...]
orch data show --json      FileJson
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import PlainSerializer
from rich.console import Group, RenderableType
from rich.text import Text

from orchestrator.cli.console import JsonModel
from orchestrator.cli.layout import PlainTable
from orchestrator.services.data import PreparedCategory
from orchestrator.wording import in_words
from schemas.categories import BY_ID, CATEGORIES
from workers.data.disk_files import printable

if TYPE_CHECKING:
    from workers.data.inventory import DatasetCount, Inventory
    from workers.data.verify import Verified

AnyPath = Annotated[Path, PlainSerializer(printable, return_type=str)]
"""A path, which may have bytes that are not UTF-8."""

LISTED = 20
"""Broken files of one category that the text lists; JSON has all."""


def label_of(category: str) -> str:
    """The short name of a category, such as `voc-cat`; other ids are returned unchanged."""
    return BY_ID[category].label if category in BY_ID else category


# -- list ---------------------------------------------------------------------------------------------------------


def generated_text() -> RenderableType:
    """A table of the generated animals, for use without a data root."""
    table = PlainTable("category", "landmarks", "parts with true masks")
    for category in CATEGORIES:
        table.add_row(category.label, ", ".join(category.landmarks), ", ".join(category.parts))
    return Group(
        Text("Generated animals, used when no data root is given. Any number of images can be drawn."),
        Text(""),
        table,
        Text(""),
        Text("To list photographs: orch data list --data-root FOLDER. To see images: orch data show"),
    )


class AnimalJson(JsonModel):
    """What is annotated on the generated animals of one category."""

    category: str
    landmarks: list[str]
    parts: list[str]


class GeneratedJson(JsonModel):
    """The answer of `orch data list --json` without a data root."""

    images: Literal["generated"] = "generated"
    categories: list[AnimalJson]

    @classmethod
    def of_all(cls) -> Self:
        """Describe all categories."""
        return cls(
            categories=[
                AnimalJson(category=one.id, landmarks=list(one.landmarks), parts=list(one.parts)) for one in CATEGORIES
            ]
        )


def list_text(found: Inventory) -> RenderableType:
    """A table of each data set under the data root."""
    parts: list[RenderableType] = []
    for dataset in found.datasets:
        parts += [*_dataset_text(dataset), Text("")]
    if found.negatives is None:
        parts.append(Text("negatives: no folder neg/ (images of other categories are used)"))
    else:
        unused = f", other entries {len(found.negatives.unused)}" if found.negatives.unused else ""
        folder = printable(found.negatives.folder)
        parts.append(Text(f"negatives: {found.negatives.images} photographs in {folder}{unused}"))
    parts += [Text(f"not used: {printable(path)}", style="yellow") for path in found.unused[:LISTED]]
    if len(found.unused) > LISTED:
        parts.append(Text(f"not used: {len(found.unused) - LISTED} more (`--json` lists all)", style="yellow"))
    return Group(*parts)


def _dataset_text(found: DatasetCount) -> list[RenderableType]:
    if found.folder is None:
        return [Text(f"{found.dataset}: not here. Looked for: {found.layout}", style="yellow")]
    absent = [c.name for c in CATEGORIES if c.dataset == found.dataset]
    for one in found.categories:
        absent.remove(BY_ID[one.category].name)
    headings = ("category", "objects", "photographs", "missing", "landmarks", "masks", "note")
    table = PlainTable(*headings, numbers=("objects", "photographs", "missing", "masks"))
    for one in found.categories:
        landmarks = ", ".join(f"{name} {count}" for name, count in one.landmarks.items())
        missing = Text(str(one.missing), style="red" if one.missing else "")
        row = (label_of(one.category), str(one.objects), str(one.images), missing, landmarks, str(one.masks))
        table.add_row(*row, Text(one.note, style="yellow"))
    lines: list[RenderableType] = [Text(f"{found.dataset}: {printable(found.folder)}", style="bold"), table]
    if absent:
        lines.append(Text(f"not here: {', '.join(absent)}. Looked for: {found.layout}", style="yellow"))
    return lines


class CategoryJson(JsonModel):
    """The annotated objects of one category."""

    category: str
    objects: int
    images: int
    missing: int
    """Images without a file."""
    landmarks: dict[str, int]
    """Objects on which each landmark is visible."""
    masks: int
    """Objects with part masks."""
    note: str


class DatasetJson(JsonModel):
    """One data set under the data root."""

    dataset: str
    folder: AnyPath | None
    layout: str
    """Files that are looked for."""
    categories: list[CategoryJson]


class NegativesJson(JsonModel):
    """The folder of photographs without animals."""

    folder: AnyPath
    images: int
    unused: list[AnyPath]
    """Names of entries that are not images."""


class InventoryJson(JsonModel):
    """The answer of `orch data list --json` with a data root."""

    images: Literal["photographs"] = "photographs"
    datasets: list[DatasetJson]
    negatives: NegativesJson | None
    unused: list[AnyPath]
    """Files that look like annotations and belong to no category with photographs."""

    @classmethod
    def of_inventory(cls, found: Inventory) -> Self:
        """Convert the answer of the service."""
        return cls(
            datasets=[DatasetJson.of(dataset) for dataset in found.datasets],
            negatives=None if found.negatives is None else NegativesJson.of(found.negatives),
            unused=list(found.unused),
        )


# -- verify -------------------------------------------------------------------------------------------------------


def verify_text(found: Sequence[Verified]) -> RenderableType:
    """The broken files, then a table of the categories."""
    parts: list[RenderableType] = []
    for one in found:
        parts += [Text(f"{printable(flaw.path)}: {printable(flaw.why)}", style="red") for flaw in one.flaws[:LISTED]]
        if len(one.flaws) > LISTED:
            left = len(one.flaws) - LISTED
            parts.append(Text(f"... and {left} more of {label_of(one.category)} (--json lists all)", style="red"))
    headings = ("category", "objects", "photographs", "flaws", "note")
    table = PlainTable(*headings, numbers=("objects", "photographs", "flaws"))
    for one in found:
        flaws = Text(str(len(one.flaws)), style="red" if one.flaws else "green")
        table.add_row(label_of(one.category), str(one.objects), str(one.images), flaws, Text(one.note, style="yellow"))
    return Group(*parts, *([Text("")] if parts else []), table)


class FlawJson(JsonModel):
    """One file that cannot be used."""

    file: AnyPath
    why: str


class VerifiedJson(JsonModel):
    """The files of one category."""

    category: str
    objects: int
    images: int
    flaws: list[FlawJson]
    note: str


class VerifyJson(JsonModel):
    """The answer of `orch data verify --json`."""

    is_sound: bool
    categories: list[VerifiedJson]

    @classmethod
    def of_verified(cls, found: Sequence[Verified]) -> Self:
        """Convert the answer of the service."""
        categories = [
            VerifiedJson(
                category=one.category,
                objects=one.objects,
                images=one.images,
                flaws=[FlawJson(file=flaw.path, why=printable(flaw.why)) for flaw in one.flaws],
                note=one.note,
            )
            for one in found
        ]
        return cls(is_sound=not any(one.flaws for one in found), categories=categories)


# -- prepare ------------------------------------------------------------------------------------------------------


def prepare_text(done: Sequence[PreparedCategory]) -> RenderableType:
    """A table of the prepared categories."""
    headings = ("category", "pixels", "images", "part maps", "skipped", "time")
    table = PlainTable(*headings, numbers=("pixels", "images", "part maps", "time"))
    for one in done:
        skipped = Text(", ".join(one.skipped[:3]) + (", ..." if len(one.skipped) > 3 else ""), style="yellow")
        table.add_row(
            label_of(one.category), str(one.size), str(one.pictures), str(one.part_maps), skipped, in_words(one.seconds)
        )
    return table


class PreparedJson(JsonModel):
    """The prepared images of one category at one size, as in `orch data prepare --json`."""

    category: str
    size: int
    """Side in pixels."""
    pictures: int
    part_maps: int
    skipped: list[str]
    """Photographs that cannot be read."""
    seconds: float


# -- show ---------------------------------------------------------------------------------------------------------


def file_text(path: Path, generated: bool) -> RenderableType:
    """The file that was written, and what it shows."""
    return Text(f"{printable(path)} ({'generated animals' if generated else 'photographs'})")


class FileJson(JsonModel):
    """The answer of `orch data show --json`."""

    file: AnyPath
