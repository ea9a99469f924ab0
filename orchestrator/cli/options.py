"""The options that several commands share, and the names that the shell completes in them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.execution.selection import REASONS
from orchestrator.planning.request import BACKBONE_FIELD, DOMAINS, VARIANT_FIELD
from schemas.categories import CATEGORIES, DATASETS
from schemas.errors import SpecError
from schemas.grids import GRIDS
from schemas.profiles import PROFILES


def _starting_with(incomplete: str, names: Any) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def complete_grid(incomplete: str) -> list[str]:
    return _starting_with(incomplete, GRIDS)


def complete_profile(incomplete: str) -> list[str]:
    return _starting_with(incomplete, PROFILES)


def complete_category(incomplete: str) -> list[str]:
    return _starting_with(incomplete, dict.fromkeys(w for c in CATEGORIES for w in (c.name, c.label, c.id)))


def complete_backbone(incomplete: str) -> list[str]:
    return _starting_with(incomplete, DOMAINS[BACKBONE_FIELD])


def complete_variant(incomplete: str) -> list[str]:
    return _starting_with(incomplete, DOMAINS[VARIANT_FIELD])


def complete_reason(incomplete: str) -> list[str]:
    return _starting_with(incomplete, REASONS)


def complete_dataset(incomplete: str) -> list[str]:
    return _starting_with(incomplete, DATASETS)


Json = Annotated[bool, typer.Option("--json", help="Print JSON for another program.")]
File = Annotated[Path | None, typer.Argument(help="A sweep file (YAML).", show_default=False)]
Grid = Annotated[str | None, typer.Option(help="A built-in grid; `orch grid list`.", autocompletion=complete_grid)]
ProfileName = Annotated[str | None, typer.Option("--profile", help="laptop or paper.", autocompletion=complete_profile)]
Name = Annotated[str | None, typer.Option(help="The sweep's name; else the file's, or one made from grid and profile.")]
Category = Annotated[
    list[str] | None,
    typer.Option(help="Only these, such as cat,cow or voc_part/cat.", autocompletion=complete_category),
]
Backbone = Annotated[
    list[str] | None, typer.Option(help=f"{', '.join(DOMAINS[BACKBONE_FIELD])}.", autocompletion=complete_backbone)
]
VariantName = Annotated[
    list[str] | None, typer.Option("--variant", help="ordinary, interpretable.", autocompletion=complete_variant)
]
Dataset = Annotated[list[str] | None, typer.Option(help="Only its categories.", autocompletion=complete_dataset)]
Sets = Annotated[
    list[str] | None, typer.Option("--set", help="Any field of a job, such as train.epochs=5; may be repeated.")
]
DataRoot = Annotated[Path | None, typer.Option(help="Folder of the photographs; without it animals are generated.")]
Weights = Annotated[
    str | None, typer.Option(help="Where networks start: torchvision, random, a name of `orch weights list`, a file.")
]
Sweep = Annotated[str, typer.Argument(help="The sweep's name.")]
Target = Annotated[str, typer.Argument(help="A sweep's name; or a job's key, the start of one, or its title.")]
Job = Annotated[str, typer.Argument(help="A job's key, the start of one, or its title.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Jobs at a time.")]


def words(options: list[str] | None) -> tuple[str, ...]:
    """The words of an option that may be repeated and takes several at once, divided by commas.

    Raises:
        SpecError: it was given, and names nothing.
    """
    found = tuple(word for option in options or () for word in option.split(",") if word.strip())
    if options and not found:
        raise SpecError("An option that narrows a sweep names nothing. Leave it out to have all, or name some.")
    return found
