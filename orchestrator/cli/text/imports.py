"""What `orch data import` prints: a table for people, and ImportedJson for `--json`."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Self

from rich.console import Group, RenderableType
from rich.text import Text

from orchestrator.cli.console import JsonModel
from orchestrator.cli.layout import PlainTable
from orchestrator.cli.text.data import AnyPath
from schemas.categories import NEGATIVE_KEY
from workers.data.disk_files import printable

if TYPE_CHECKING:
    from workers.data.importing.storing import Imported


def import_text(done: Imported) -> RenderableType:
    """A table of the imported categories, what was not used, and the commands that come next."""
    table = PlainTable("category", "objects", "landmarks", "parts", numbers=("objects",))
    for key, count in done.objects.items():
        found = done.categories.get(key)
        if found is None:
            table.add_row("negatives", str(count), "", "")
            continue
        landmarks = ", ".join(found.landmarks) or Text("none: no location instability", style="yellow")
        parts = ", ".join(found.parts) or "none: no part interpretability"
        table.add_row(f"{done.name}/{key}", str(count), landmarks, parts)
    turned = f", {done.turned} turned upright" if done.turned else ""
    root = shlex.quote(printable(done.folder.parent))
    return Group(
        Text(f"{done.name}: {done.photographs} photographs{turned} in {printable(done.folder)}", style="bold"),
        table,
        *(Text(printable(note), style="yellow") for note in done.notes),
        Text(""),
        Text(f"To check it: orch data list --data-root {root}"),
        Text(f"To train on it: orch sweep --grid all-categories --dataset {done.name} --data-root {root}"),
    )


class ImportedCategoryJson(JsonModel):
    """One imported category, or the negatives."""

    category: str
    objects: int
    landmarks: list[str]
    parts: list[str]


class ImportedJson(JsonModel):
    """The answer of `orch data import --json`."""

    name: str
    folder: AnyPath
    photographs: int
    turned: int
    """Photographs that were turned by their EXIF tag."""
    categories: list[ImportedCategoryJson]
    notes: list[str]
    """What was not used, and what the data cannot measure."""

    @classmethod
    def of_imported(cls, done: Imported) -> Self:
        """Convert the answer of the service."""
        return cls(
            name=done.name,
            folder=done.folder,
            photographs=done.photographs,
            turned=done.turned,
            categories=[
                ImportedCategoryJson(
                    category=f"{done.name}/{key}",
                    objects=count,
                    landmarks=list(done.categories[key].landmarks) if key != NEGATIVE_KEY else [],
                    parts=list(done.categories[key].parts) if key != NEGATIVE_KEY else [],
                )
                for key, count in done.objects.items()
            ],
            notes=[printable(note) for note in done.notes],
        )
