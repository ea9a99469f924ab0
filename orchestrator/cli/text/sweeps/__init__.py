"""What the sweep commands print: tables and sentences for people, and the shapes of their `--json`.

orch plan --json            plan.PlanJson
orch status --json          [status.SweepJson, ...]; with a sweep's name, status.StatusJson
orch sweep, resume --json   outcome.OutcomeJson
orch report --out --json    report.ReportFileJson; without --out, the report as `orchestrator.report.formats.as_json`
orch ui --json              ui.UiJson
orch grid list --json       [grids.GridJson, ...]
"""
