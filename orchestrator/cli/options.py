"""The options that several commands share: their help texts, the names they accept, and shell completion."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import typer

from orchestrator import settings as env
from orchestrator import yaml_text
from orchestrator.cli.completion import (
    complete_assignment,
    complete_category,
    complete_job,
    complete_sweep,
    complete_target,
    completer,
)
from orchestrator.execution.retry_policy import REASONS
from orchestrator.planning import request as requesting
from orchestrator.planning import sweep_file
from orchestrator.services import requests
from schemas.base import did_you_mean
from schemas.categories import DATASETS
from schemas.errors import SpecError
from schemas.grids import GRIDS
from schemas.job import Variant
from schemas.model_spec import TABLE
from schemas.profiles import PROFILES
from schemas.sweep import SweepSpec

MAX_NUMBER = 2**31 - 1
"""Largest number of an option without a limit of its own."""


def choice(kind: str, names: Iterable[str], *flags: str, help: str, several: bool = False) -> Any:
    """Declare an option that takes names of a closed set, which `--help` lists and the shell completes.

    Args:
        kind: what a name stands for; used in messages and, in capitals, as the placeholder in `--help`.
        names: the valid names. The command receives one of these, also where the user wrote it in capitals.
        flags: how the option is written. Default: as the parameter is called.
        help: the help text, to which the valid names are added.
        several: the option takes several names, separated by commas, which `words` splits.
    """
    known = {str(name): name for name in names}

    def parse(word: str) -> str:
        name = word.strip().lower()
        if name not in known:
            raise SpecError(f"No {kind} is called {word!r}. {did_you_mean(name, known)}")
        return known[name]

    def parse_several(text: str) -> str:
        return ",".join(parse(word) for word in text.split(",") if word.strip())

    return typer.Option(
        *flags,
        help=f"{help} {'Any' if several else 'One'} of: {', '.join(known)}.",
        metavar=kind.replace(" ", "").upper() + (",..." if several else ""),
        parser=parse_several if several else parse,
        autocompletion=completer(known),
        show_default=False,
    )


def backbones(*, help: str) -> Any:
    """Declare an option that takes names of backbones, separated by commas: of the table, or `SOURCE:NAME@LAYER`."""

    def parse(text: str) -> str:
        return ",".join(requesting.find_backbone(word) for word in text.split(",") if word.strip())

    return typer.Option(
        help=f"{help} Any of: {', '.join(TABLE)}, and networks of other libraries such as torchvision:resnet18@layer4.",
        metavar="BACKBONE,...",
        parser=parse,
        autocompletion=completer(TABLE),
        show_default=False,
    )


def number(
    *flags: str, help: str, least: float, most: float | None = None, whole: bool = True, show_default: bool = True
) -> Any:
    """Declare an option that takes a finite number, written as in a sweep file: no `1_000`, no digits of other scripts.

    Args:
        flags: how the option is written. Default: as the parameter is called.
        help: the help text.
        least: the smallest number.
        most: the largest number; None means no limit.
        whole: whether only whole numbers are taken.
        show_default: whether `--help` shows the default.
    """
    limits = f"from {least:g} to {most:g}" if most is not None else f"of at least {least:g}"
    shown = f"{least:g}<=x<={most:g}" if most is not None else f"x>={least:g}"

    def parse(text: Any) -> Any:
        found = yaml_text.scalar(text)
        kinds = (int,) if whole else (int, float)
        if type(found) not in kinds or not least <= found <= (MAX_NUMBER if most is None else most):
            raise typer.BadParameter(f"{text!r} is not a {'whole ' if whole else ''}number {limits}.")
        return found

    return typer.Option(
        *flags,
        help=help,
        metavar=f"{'INTEGER' if whole else 'FLOAT'} [{shown}]",
        parser=parse,
        show_default=show_default,
    )


Json = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
Category = Annotated[
    list[str] | None,
    typer.Option(
        help="Only these categories, such as `cat,cow` or `voc_part/cat`. `orch data list` names all.",
        metavar="CATEGORY,...",
        autocompletion=complete_category,
    ),
]
Backbone = Annotated[list[str] | None, backbones(help="Only these networks.")]
Profile = Annotated[
    str | None,
    choice("profile", PROFILES, help="Sizes and training schedules. Default: ORCH_PROFILE, else laptop."),
]
DataRoot = Annotated[
    Path | None,
    typer.Option(help="Folder of the photographs. Default: ORCH_DATA_ROOT; without either, animals are generated."),
]
Sweep = Annotated[
    str, typer.Argument(help="Name of the sweep. `orch status` lists them.", autocompletion=complete_sweep)
]
Target = Annotated[
    str,
    typer.Argument(
        help="Name of a sweep, or a job: its key, the start of its key, or its title.", autocompletion=complete_target
    ),
]
Job = Annotated[
    str,
    typer.Argument(help="A job: its key, the start of its key, or its title.", autocompletion=complete_job),
]
Workers = Annotated[
    int | None,
    number(least=1, help="Jobs to run at a time. Default: one per GPU, else per core."),
]
Detach = Annotated[
    bool,
    typer.Option("--detach", help="Hand the sweep to the cluster of ORCH_RAY_ADDRESS and return."),
]
Reason = Annotated[
    list[str] | None, choice("reason", REASONS, help="Only jobs that stopped for these reasons.", several=True)
]


@dataclass(frozen=True)
class SweepOptions:
    """What `orch plan` and `orch sweep` take to say which jobs they mean. Each field is one option."""

    file: Annotated[
        Path | None,
        typer.Argument(help="A sweep file (YAML) in place of --grid; `-` reads standard input.", show_default=False),
    ] = None
    grid: Annotated[str | None, choice("grid", GRIDS, help="A built-in grid; `orch grid list` describes them.")] = None
    profile: Annotated[
        str | None,
        choice(
            "profile",
            PROFILES,
            help="Sizes and training schedules. Default: the sweep file's, else ORCH_PROFILE, else laptop.",
        ),
    ] = None
    name: Annotated[
        str | None,
        typer.Option(help="Name of the sweep. Default: the file's name, or one made of grid, profile and options."),
    ] = None
    category: Category = None
    backbone: Backbone = None
    variant: Annotated[
        list[str] | None, choice("variant", get_args(Variant), help="Only these variants.", several=True)
    ] = None
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Only categories of these data sets: {', '.join(DATASETS)}, or imported ones.",
            metavar="DATASET,...",
            autocompletion=completer(DATASETS),
        ),
    ] = None
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Set a field of every job, such as `train.epochs=5`. May be repeated.",
            metavar="FIELD=VALUE",
            autocompletion=complete_assignment,
        ),
    ] = None
    data_root: DataRoot = None
    weights: Annotated[
        str | None,
        typer.Option(
            help="Weights that networks start from: torchvision, imagenet, everything, random, a name from "
            "`orch weights list`, or a file. Default: what the profile says."
        ),
    ] = None

    def request(self, settings: env.Settings) -> requesting.SweepRequest:
        """Read the sweep file and the values of `--set`, and find the weights.

        Raises:
            SpecError: there is neither a grid nor a file, or both; or one of the options cannot be used as written.
            WeightsError: there are no such weights.
        """
        if (self.file is None) == (self.grid is None):
            raise SpecError(
                "Name either a grid, such as `--grid smoke` (`orch grid list` shows all), or a sweep file, not both."
            )
        return requests.make_request(
            settings,
            sweep_file.read_sweep_file(self.file) if self.file else SweepSpec(grid=self.grid),
            self.file,
            name=self.name,
            profile=self.profile,
            categories=words(self.category),
            backbones=words(self.backbone),
            variants=words(self.variant),
            datasets=words(self.dataset),
            sets=sweep_file.parse_sets(self.sets or ()),
            weights=self.weights,
            data_root=self.data_root,
        )


def takes_sweep_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `SweepOptions`, in place of its first parameter, which receives their values."""
    hints = get_type_hints(SweepOptions, include_extras=True)
    shared = [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
        )
        for field in fields(SweepOptions)
    ]
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]

    @wraps(command)
    def expanded(**values: Any) -> None:
        options = SweepOptions(**{option.name: values.pop(option.name) for option in shared})
        command(options, **values)

    expanded.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [*shared, *(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own)]
    )
    return expanded


def words(options: list[str] | None) -> tuple[str, ...]:
    """Split an option that may be repeated and takes several names at once, separated by commas.

    Raises:
        SpecError: the option is given and holds no name.
    """
    found = tuple(word.strip() for option in options or () for word in option.split(",") if word.strip())
    if options and not found:
        raise SpecError("An option names nothing. Leave it out, or name at least one.")
    return found
