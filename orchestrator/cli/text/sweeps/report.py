"""What `orch report` prints with `--json` if it wrote a file."""

from __future__ import annotations

from pathlib import Path

from orchestrator.cli.console import JsonModel


class ReportFileJson(JsonModel):
    """The answer of `orch report --out FILE --json`."""

    file: Path
