"""Turns what is known of data sets into tables for people and JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from orchestrator.cli.console import plain_table
from orchestrator.services.data import PreparedCategory
from orchestrator.wording import in_words
from schemas.categories import BY_ID, CATEGORIES

if TYPE_CHECKING:
    from workers.data.inventory import DatasetCount, Inventory
    from workers.data.verify import Verified

LISTED = 20
"""Broken files of one category that the text names; JSON has all."""


def label_of(category: str) -> str:
    return BY_ID[category].label if category in BY_ID else category


# -- list ---------------------------------------------------------------------------------------------------------


def generated_text() -> RenderableType:
    table = plain_table("category", "landmarks", "parts with true masks")
    for category in CATEGORIES:
        table.add_row(category.label, ", ".join(category.landmarks), ", ".join(category.parts))
    return Group(
        Text("Generated animals: as many as are asked for, drawn where no data root is given."),
        Text(""),
        table,
        Text(""),
        Text("Photographs: --data-root FOLDER. `orch data show` draws what the networks see."),
    )


def generated_json() -> dict[str, Any]:
    each = [{"category": c.id, "landmarks": list(c.landmarks), "parts": list(c.parts)} for c in CATEGORIES]
    return {"images": "generated", "categories": each}


def list_text(found: Inventory) -> RenderableType:
    parts: list[RenderableType] = []
    for dataset in found.datasets:
        parts += [*_dataset_text(dataset), Text("")]
    if found.negatives is None:
        parts.append(Text("negatives: no folder neg/ (other categories serve instead)"))
    else:
        parts.append(Text(f"negatives: {found.negatives[1]} photographs in {found.negatives[0]}"))
    return Group(*parts)


def _dataset_text(found: DatasetCount) -> list[RenderableType]:
    if found.folder is None:
        return [Text(f"{found.dataset}: not here. Looked for: {found.layout}", style="yellow")]
    absent = [c.name for c in CATEGORIES if c.dataset == found.dataset]
    for one in found.categories:
        absent.remove(BY_ID[one.category].name)
    table = plain_table("category", "objects", "photographs", "missing", "landmarks", "masks", "")
    for one in found.categories:
        landmarks = ", ".join(f"{name} {count}" for name, count in one.landmarks.items())
        missing = Text(str(one.missing), style="red" if one.missing else "")
        row = (label_of(one.category), str(one.objects), str(one.images), missing, landmarks, str(one.masks))
        table.add_row(*row, Text(one.note, style="yellow"))
    lines: list[RenderableType] = [Text(f"{found.dataset}: {found.folder}", style="bold"), table]
    if absent:
        lines.append(Text(f"not here: {', '.join(absent)}. Looked for: {found.layout}", style="yellow"))
    return lines


def list_json(found: Inventory) -> dict[str, Any]:
    return {
        "images": "photographs",
        "datasets": [
            {
                "dataset": dataset.dataset,
                "folder": str(dataset.folder) if dataset.folder else None,
                "layout": dataset.layout,
                "categories": [one._asdict() for one in dataset.categories],
            }
            for dataset in found.datasets
        ],
        "negatives": {"folder": str(found.negatives[0]), "images": found.negatives[1]} if found.negatives else None,
    }


# -- verify -------------------------------------------------------------------------------------------------------


def verify_text(found: Sequence[Verified]) -> RenderableType:
    parts: list[RenderableType] = []
    for one in found:
        parts += [Text(f"{flaw.path}: {flaw.why}", style="red") for flaw in one.flaws[:LISTED]]
        if len(one.flaws) > LISTED:
            left = len(one.flaws) - LISTED
            parts.append(Text(f"... and {left} more of {label_of(one.category)} (--json names all)", style="red"))
    table = plain_table("category", "objects", "photographs", "flaws", "")
    for one in found:
        flaws = Text(str(len(one.flaws)), style="red" if one.flaws else "green")
        table.add_row(label_of(one.category), str(one.objects), str(one.images), flaws, Text(one.note, style="yellow"))
    return Group(*parts, *([Text("")] if parts else []), table)


def verify_json(found: Sequence[Verified]) -> dict[str, Any]:
    return {
        "is_sound": not any(one.flaws for one in found),
        "categories": [
            {**one._asdict(), "flaws": [{"file": str(flaw.path), "why": flaw.why} for flaw in one.flaws]}
            for one in found
        ],
    }


# -- prepare ------------------------------------------------------------------------------------------------------


def prepare_text(done: Sequence[PreparedCategory]) -> RenderableType:
    table = plain_table("category", "pixels", "pictures", "part maps", "skipped", "time")
    for one in done:
        skipped = Text(", ".join(one.skipped[:3]) + (", ..." if len(one.skipped) > 3 else ""), style="yellow")
        table.add_row(
            label_of(one.category), str(one.size), str(one.pictures), str(one.part_maps), skipped, in_words(one.seconds)
        )
    return table


def prepare_json(done: Sequence[PreparedCategory]) -> list[dict[str, Any]]:
    return [
        {
            "category": one.category,
            "size": one.size,
            "pictures": one.pictures,
            "part_maps": one.part_maps,
            "skipped": list(one.skipped),
            "seconds": round(one.seconds, 2),
        }
        for one in done
    ]
