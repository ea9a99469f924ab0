"""Reads a sweep's results into the paper's tables, writes them in a format, and logs them in the sweep's run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from orchestrator.ledger import store
from orchestrator.ledger.base import LedgerReader, known_sweep
from orchestrator.ledger.liveness import Liveness
from orchestrator.ledger.records import SweepRecord
from orchestrator.planning.diff import PlannedJob, compare
from orchestrator.report import formats
from orchestrator.report.build import build_report, check_table_numbers
from orchestrator.report.gallery import read_gallery
from orchestrator.report.html import as_html
from orchestrator.report.model import Report
from orchestrator.report.suggestions import incomplete_error
from orchestrator.services.choices import Format
from orchestrator.settings import Settings
from schemas.errors import SpecError, StoreError

_SUFFIXES: Mapping[str, Format] = {
    ".md": Format.MARKDOWN, ".csv": Format.CSV, ".tex": Format.LATEX, ".html": Format.HTML, ".json": Format.JSON,
}  # fmt: skip
_WRITERS: Mapping[Format, Callable[[Report], str]] = {
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
    """Requested tables; empty means all for which the sweep has a value."""
    report: Report

    def written(self, form: Format, width: int | None = None) -> str:
        """The report as text of one format.

        Args:
            form: the format.
            width: columns of the terminal that plain text is for; None for a file.
        """
        if form is Format.TEXT:
            return formats.as_text(self.report, width)
        return self._html if form is Format.HTML else _WRITERS[form](self.report)

    def as_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return formats.as_json(self.report)

    def log(self) -> None:
        """Store the report in the sweep's MLflow run, as Markdown and HTML. The file name names the tables."""
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
    settings: Settings, ledger: LedgerReader, name: str, numbers: tuple[int, ...] = (), *, strict: bool = False
) -> SweepTables:
    """Fill the paper's tables with the results of a sweep.

    Args:
        name: the sweep's name.
        numbers: the tables to fill; none means all for which the sweep has a value.
        strict: refuse a report that lacks values.

    Raises:
        SpecError: the paper has no such table, the sweep has no value for the tables, or, with `strict`, values are
            missing.
        StoreError: the store has no such sweep, or the sweep was never planned.
    """
    check_table_numbers(numbers)
    sweep = known_sweep(ledger, name)
    stored = sweep.plan
    if stored is None:
        raise StoreError(f"Sweep {name!r} was stopped before it was planned. Repeat its `orch sweep` command.")
    jobs = compare(stored.specs, ledger.jobs(), Liveness(ledger))
    report = build_report(name, jobs, stored.upstream_keys, numbers)
    if report.missing and strict:
        raise incomplete_error(stored, report.missing, settings.resume_command(stored.name))
    if not report.tables:
        which = f"Table {' or '.join(map(str, numbers))}" if numbers else "any of the paper's tables"
        raise SpecError(f"Sweep {name} has no value for {which} yet. `orch status {name}` shows its jobs.")
    return SweepTables(settings, sweep, jobs, numbers, report)


def format_for(out: Path | None) -> Format:
    """The format that belongs to a file's suffix; text for an unknown suffix or no file."""
    return _SUFFIXES.get(out.suffix.lower(), Format.TEXT) if out else Format.TEXT


def write(text: str, out: Path) -> None:
    """Write a report to a file.

    Raises:
        SpecError: the folder does not exist or cannot be written to.
    """
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SpecError(f"The report cannot be written to {out} ({error.strerror}). Name another `--out`.") from error
