"""What `orch data` prints: tables for people, and the shapes of its `--json`.

orch data list --json      GeneratedJson without a data root, else InventoryJson
orch data verify --json    VerifyJson
orch data prepare --json   [PreparedJson, ...]
orch data push --json      [PushedJson, ...]
orch data status --json    StatusJson
orch data show --json      FileJson
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import PlainSerializer
from rich.console import Group, RenderableType
from rich.text import Text

from orchestrator.cli.console import JsonModel
from orchestrator.cli.layout import PlainTable
from orchestrator.services.data import PreparedCategory
from orchestrator.wording import in_words
from schemas.categories import CATEGORIES, category_of, is_category
from workers.data.disk_files import printable

if TYPE_CHECKING:
    from workers.data.inventory import DatasetCount, Inventory
    from workers.data.pushed.description import Head
    from workers.data.pushed.pushing import Pushed
    from workers.data.verify import Verified

AnyPath = Annotated[Path, PlainSerializer(printable, return_type=str)]
"""A path, which may have bytes that are not UTF-8."""

LISTED = 20
"""Broken files of one category that the text lists; JSON has all."""


def label_of(category: str) -> str:
    """The short name of a category, such as `voc-cat`; other ids are returned unchanged."""
    return category_of(category).label if is_category(category) else category


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
        others = f", other entries {len(found.negatives.unused)}" if found.negatives.unused else ""
        folder = printable(found.negatives.folder)
        parts.append(Text(f"negatives: {found.negatives.images} photographs in {folder}{others}"))
    unused = [f"not used: {printable(path)}" for path in found.unused]
    unused += [f"of no data set: {printable(path)}" for path in found.unknown]
    parts += [Text(line, style="yellow") for line in unused[:LISTED]]
    if len(unused) > LISTED:
        parts.append(Text(f"not used: {len(unused) - LISTED} more (`--json` lists all)", style="yellow"))
    return Group(*parts)


def _dataset_text(found: DatasetCount) -> list[RenderableType]:
    if found.folder is None:
        return [Text(f"{found.dataset}: not here. Looked for: {found.layout}", style="yellow")]
    present = {one.category for one in found.categories}
    absent = [c.name for c in CATEGORIES if c.dataset == found.dataset and c.id not in present]
    headings = ("category", "objects", "photographs", "missing", "landmarks", "masks", "note")
    table = PlainTable(*headings, numbers=("objects", "photographs", "missing", "masks"))
    for one in found.categories:
        landmarks = ", ".join(f"{name} {count}" for name, count in one.landmarks.items())
        missing = Text(str(one.missing), style="red" if one.missing else "")
        row = (label_of(one.category), str(one.objects), str(one.images), missing, landmarks, str(one.masks))
        table.add_row(*row, Text(one.note, style="yellow"))
    lines: list[RenderableType] = [Text(f"{found.dataset}: {printable(found.folder)}", style="bold"), table]
    if found.negatives:
        lines.append(Text(f"negatives: {found.negatives} photographs"))
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
    negatives: int
    """Negative images of an imported data set."""


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
    unknown: list[AnyPath]
    """Other entries of the data root that belong to no data set."""

    @classmethod
    def of_inventory(cls, found: Inventory) -> Self:
        """Convert the answer of the service."""
        return cls(
            datasets=[DatasetJson.of(dataset) for dataset in found.datasets],
            negatives=None if found.negatives is None else NegativesJson.of(found.negatives),
            unused=list(found.unused),
            unknown=list(found.unknown),
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


# -- push and status ----------------------------------------------------------------------------------------------


def push_text(done: Sequence[Pushed]) -> RenderableType:
    """What was sent of each data set, and how large it is."""
    lines = []
    for one in done:
        sent = f"{one.sent / 1e6:.1f} MB sent" if one.sent else "nothing to send: all of it was there"
        lines.append(
            Text(
                f"{one.dataset}: {one.objects} pictures of {len(one.categories)} categories at "
                f"{', '.join(map(str, one.sizes))} pixels, {one.bytes / 1e6:.1f} MB; {sent}"
            )
        )
    return Group(*lines)


class PushedJson(JsonModel):
    """What was pushed of one data set, as in `orch data push --json`."""

    dataset: str
    categories: list[str]
    """Everything that its jobs can draw on as positives and negatives."""
    sizes: list[int]
    """Sides in pixels."""
    objects: int
    bytes: int
    """Size of the pictures."""
    sent: int
    """Bytes that were not there yet."""


def status_text(where: str, found: Mapping[str, Head]) -> RenderableType:
    """A table of the data sets in the object store."""
    if not found:
        return Text(f"Nothing is pushed to {where}. To push: orch data push --data-root FOLDER")
    table = PlainTable("data set", "objects", "pixels", "MB", "pushed", "from", numbers=("objects", "MB"))
    for name, head in found.items():
        sizes = sorted((int(size), one.bytes) for size, one in head.sizes.items())
        table.add_row(
            name,
            str(sum(head.objects.values())),
            ", ".join(str(size) for size, _ in sizes),
            f"{sum(one for _, one in sizes) / 1e6:.1f}",
            time.strftime("%Y-%m-%d %H:%M", time.localtime(head.pushed_at)),
            head.pushed_from,
        )
    return Group(Text(where, style="bold"), table)


class HeadJson(JsonModel):
    """One data set in the object store."""

    dataset: str
    description: str
    """Digest of annotations and images."""
    objects: dict[str, int]
    """By category: everything that its jobs can draw on."""
    sizes: dict[str, int]
    """Bytes of the pictures, by their side in pixels."""
    pushed_at: float
    """Unix time in seconds."""
    pushed_from: str
    """Name of the machine."""


class StatusJson(JsonModel):
    """The answer of `orch data status --json`."""

    object_store: str
    datasets: list[HeadJson]

    @classmethod
    def of_heads(cls, where: str, found: Mapping[str, Head]) -> Self:
        """Convert the answer of the service."""
        return cls(
            object_store=where,
            datasets=[
                HeadJson(
                    dataset=name,
                    description=head.description,
                    objects=head.objects,
                    sizes={size: one.bytes for size, one in head.sizes.items()},
                    pushed_at=head.pushed_at,
                    pushed_from=head.pushed_from,
                )
                for name, head in found.items()
            ],
        )


# -- show ---------------------------------------------------------------------------------------------------------


def file_text(path: Path, generated: bool) -> RenderableType:
    """The file that was written, and what it shows."""
    return Text(f"{printable(path)} ({'generated animals' if generated else 'photographs'})")


class FileJson(JsonModel):
    """The answer of `orch data show --json`."""

    file: AnyPath
