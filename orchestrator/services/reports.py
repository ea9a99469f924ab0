"""From a sweep's name to its report: read, written in a format, and left in the sweep's run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path

from orchestrator.ledger import store
from orchestrator.ledger.base import Ledger, known_sweep
from orchestrator.ledger.liveness import Liveness
from orchestrator.ledger.records import SweepRecord
from orchestrator.planning.diff import PlannedJob, compare
from orchestrator.report import formats
from orchestrator.report.build import build_report, check_table_numbers
from orchestrator.report.gallery import read_gallery
from orchestrator.report.html import as_html
from orchestrator.report.model import Report
from orchestrator.report.suggestions import incomplete_error
from orchestrator.settings import Settings
from schemas.errors import SpecError, StoreError


class Format(StrEnum):
    TEXT = "text"
    MARKDOWN = "markdown"
    CSV = "csv"
    LATEX = "latex"
    HTML = "html"
    JSON = "json"


_SUFFIXES: Mapping[str, Format] = {
    ".md": Format.MARKDOWN, ".csv": Format.CSV, ".tex": Format.LATEX, ".html": Format.HTML, ".json": Format.JSON,
}  # fmt: skip
_WRITERS: Mapping[Format, Callable[[Report], str]] = {
    Format.TEXT: formats.as_text,
    Format.MARKDOWN: formats.as_markdown,
    Format.CSV: formats.as_csv,
    Format.LATEX: formats.as_latex,
    Format.JSON: lambda report: json.dumps(formats.as_json(report), indent=2) + "\n",
}


@dataclass(frozen=True)
class SweepTables:
    """The paper's tables, filled with what a sweep measured."""

    settings: Settings
    sweep: SweepRecord
    jobs: list[PlannedJob]
    numbers: tuple[int, ...]
    """The tables that were asked for; none means all to which the sweep has something to say."""
    report: Report

    def written(self, form: Format) -> str:
        return self._html if form is Format.HTML else _WRITERS[form](self.report)

    def log(self) -> None:
        """Leave the report in the sweep's run, under a name of its own for a choice of tables."""
        stem = "table-" + "-".join(map(str, self.numbers)) if self.numbers else "tables"
        client = store.open_client(self.settings)
        with store.reaching(self.settings.store_uri):
            client.log_text(self.sweep.run_id, self.written(Format.MARKDOWN), f"report/{stem}.md")
            client.log_text(self.sweep.run_id, self.written(Format.HTML), f"report/{stem}.html")

    @cached_property
    def _html(self) -> str:
        client = store.open_client(self.settings)
        return as_html(self.report, read_gallery(self.settings, client, self.jobs))


def read_tables(
    settings: Settings, ledger: Ledger, name: str, numbers: tuple[int, ...] = (), *, partial: bool = False
) -> SweepTables:
    """
    Raises:
        SpecError: the paper has no such table, or, without `partial`, the sweep lacks some of its values.
        StoreError: there is no such sweep, or it was never planned.
    """
    check_table_numbers(numbers)
    sweep = known_sweep(ledger, name)
    stored = sweep.plan
    if stored is None:
        raise StoreError(f"Sweep {name!r} was stopped before it was planned. Start it again with `orch sweep`.")
    jobs = compare(stored.specs, ledger.jobs(), Liveness(ledger))
    report = build_report(name, jobs, stored.upstream_keys, numbers)
    if report.missing and not partial:
        raise incomplete_error(stored, report.missing)
    if not report.tables:
        raise SpecError(f"Sweep {name} has no value for any of the paper's tables yet. Look at it: orch status {name}")
    return SweepTables(settings, sweep, jobs, numbers, report)


def format_for(out: Path | None) -> Format:
    """What a file's name asks for."""
    return _SUFFIXES.get(out.suffix.lower(), Format.TEXT) if out else Format.TEXT


def write(text: str, out: Path) -> None:
    """
    Raises:
        SpecError: there is no such folder, or it cannot be written.
    """
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SpecError(f"The report cannot be written to {out} ({error.strerror}). Name another `--out`.") from error
