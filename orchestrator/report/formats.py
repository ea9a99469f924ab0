"""Writes a report as text, Markdown, LaTeX, CSV or JSON, from one grid of cells."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import asdict
from textwrap import fill
from typing import Any

from orchestrator.report.measures import HEADINGS as MEASURE_HEADINGS
from orchestrator.report.measures import LEGEND, NARROW, WORTH, follows_sentences, mean_of
from orchestrator.report.measures import cells as measure_cells
from orchestrator.report.model import (
    DATASET_TITLES,
    METRICS,
    Block,
    Line,
    Metric,
    Overall,
    Report,
    ReportTable,
    TableEntry,
)
from orchestrator.report.significance import MIN_PAIRS, Comparison
from orchestrator.report.summary import VARIANTS
from orchestrator.report.tables import TableFormat, escape_latex, fitted_table, render_table
from schemas.paper import ALL, AVERAGE

EMPTY = "-"
"""Cell without a value."""
_VALUES = ("ordinary", "paper", "diff.", "interp.", "paper", "diff.", "change", "paper")
_OWN_VALUES = ("ordinary", "interp.", "change")
"""Headings of a table of an imported data set, which has no published values."""
_ACCURACIES = ("acc. ord.", "acc. int.", "chance")
"""Headings of the accuracies beside each change of location instability, in per cent."""
_CHANCE = ("chance",)
"""Heading of the chance level beside the accuracies of Table 7."""
_DERIVED = ("diff.", "paper")
"""Headings of the columns that a narrow terminal leaves out."""
SEEDS_NOTE = "(n): mean over n seeds."


def headings(table: ReportTable) -> list[str]:
    """Return the column headings: text columns first, then values."""
    settings = ["settings"] if _has_settings(table) else []
    return ["network", *settings, _row_heading(table), *value_headings(table)]


def value_headings(table: ReportTable) -> tuple[str, ...]:
    """Return the headings of the columns that hold values."""
    values = _OWN_VALUES if table.number is None else _VALUES
    return values + (_ACCURACIES if has_accuracies(table) else _CHANCE if _is_accuracy(table) else ())


def has_accuracies(table: ReportTable) -> bool:
    """Whether accuracies stand beside the changes of this table."""
    return not _is_accuracy(table)


def _has_worth(table: ReportTable) -> bool:
    """Whether a second table says what the values of this one are worth."""
    return table.metric == "location_instability"


def _is_accuracy(table: ReportTable) -> bool:
    return table.metric == "accuracy_percent"


def rows(table: ReportTable) -> Iterator[tuple[Line, list[str]]]:
    """Yield every shown line with its cells, in the order of `headings`."""
    metric = METRICS[table.metric]
    for block in table.blocks:
        settings = [block.setting] if _has_settings(table) else []
        for line in block.shown:
            chance = _chance(line) if has_accuracies(table) or _is_accuracy(table) else []
            accuracies = [*(_accuracies(line) if has_accuracies(table) else []), *chance]
            yield line, [block.backbone, *settings, label(line, table), *_values(line, metric, table), *accuracies]


def text_columns(table: ReportTable) -> int:
    """Return the number of leading columns that hold text."""
    return len(headings(table)) - len(value_headings(table))


def label(line: Line, table: ReportTable) -> str:
    """Return the row label: the category, the mean, or the networks of one data set that the line stands for."""
    place, some = line.place, f"{line.covered} of {line.total}" if 0 < line.covered < line.total else str(line.total)
    if table.is_one_data_set:
        return f"mean of {some}" if place.category == AVERAGE else place.category
    what = f"one category each, mean of {some}" if place.category == AVERAGE else "one category"
    what = f"{some} categories, {place.loss} loss" if place.category == ALL else what
    return f"{DATASET_TITLES.get(place.dataset, place.dataset)}, {what}"


def comparison_text(found: Comparison, metric: Metric) -> str:
    """Summarise a comparison in words.

    Returns:
        In how many categories the interpretable network is better, the mean change, and, with enough pairs, its
        interval and p-value. Has no final full stop.
    """
    direction = "below" if metric.lower_is_better else "above"
    head = (
        f"interpretable {direction} ordinary in {found.better} of {found.pairs} categories, "
        f"mean change {found.mean_change:+z.1%}"
    )
    if found.accuracy:
        head += f" ({accuracy_text(found)})"
    if found.p is None or found.interval is None:
        return f"{head}; too few categories that differ for a test (fewer than {MIN_PAIRS})"
    low, high = found.interval
    holm = f", Holm over {found.tests}" if found.tests > 1 else ""
    shared = ", both for the starting weights that the categories share" if found.shares_weights else ""
    return f"{head} (95 % interval {low:+z.1%} to {high:+z.1%}), one-sided Wilcoxon p = {found.p:.2g}{holm}{shared}"


def accuracy_text(found: Comparison) -> str:
    """Return the mean accuracies of a comparison in words; empty if they were not measured."""
    if not found.accuracy:
        return ""
    chance = "" if found.chance is None else f", chance {found.chance:.2f} %"
    return f"mean accuracy {found.accuracy[0]:.2f} % ordinary, {found.accuracy[1]:.2f} % interpretable{chance}"


def worth_text(found: Comparison) -> str:
    """Say how much of a change of location instability follows the part; begins with a space, or is empty."""
    return "".join(f" {sentence}" for sentence in follows_sentences(*found.measures)) if found.measures else ""


def measure_headings(table: ReportTable) -> list[str]:
    """Return the headings of `measure_rows`, three or four of them for text."""
    settings = ["settings"] if _has_settings(table) else []
    return ["network", *settings, _row_heading(table), "variant", *MEASURE_HEADINGS]


def measure_rows(table: ReportTable, *, only_means: bool = False) -> list[list[str]]:
    """Return what every value of a table of location instability is worth; empty for other tables and old results.

    Args:
        table: the table.
        only_means: leave out the single categories of networks that have a mean.
    """
    found = []
    for block in table.blocks if _has_worth(table) else ():
        settings = [block.setting] if _has_settings(table) else []
        means = [line for line in block.shown if line.place.category == AVERAGE]
        for line in means if only_means and means else block.shown:
            found += [
                [block.backbone, *settings, label(line, table), variant, *measure_cells(entry.measures)]
                for variant, entry in line.entries.items()
                if entry.measures.shuffled is not None
            ]
    return found


def notes(table: ReportTable) -> list[str]:
    """Return the notes below a table: images, one comparison per network, filters left out, seeds."""
    metric = METRICS[table.metric]
    compared = [(b, b.comparison) for b in table.blocks if b.comparison] if metric.change_is_relative else []
    return [
        *_images_note(table),
        *(f"{_network(block)}: {comparison_text(found, metric)}.{worth_text(found)}" for block, found in compared),
        *_left_out_note(table),
        *_seeds_note(table),
    ]


def overall_notes(report: Report) -> list[str]:
    """Return one note per network that is compared over all data sets."""
    metric = METRICS["location_instability"]
    return [
        f"{_network(found)}, location instability over all data sets: {comparison_text(found.comparison, metric)}."
        + worth_text(found.comparison)
        for found in report.overall
    ]


# -- formats ------------------------------------------------------------------------------------------------------


def as_text(report: Report, width: int | None = None) -> str:
    """Format a report for a terminal.

    Args:
        report: the tables.
        width: columns of the terminal; None for a file, whose lines may have any length.
    """
    head = [f"sweep {report.sweep}: {report.caption}", *given_notes(report), *(f"! {line}" for line in report.caveats)]
    parts = [*_wrapped(head, width), ""]
    for table in report.tables:
        cells = [cells for _, cells in rows(table)]
        drawn = fitted_table(headings(table), cells, text_columns(table), width, _DERIVED)
        parts += [*_wrapped([table.title], width), drawn, *_wrapped(notes(table), width), ""]
        parts += _measures_text(table, width)
    return "\n".join([*parts, *_wrapped([*legend(report), *overall_notes(report)], width)]).rstrip() + "\n"


def _measures_text(table: ReportTable, width: int | None) -> list[str]:
    found = measure_rows(table, only_means=True)
    if not found:
        return []
    heads = measure_headings(table)
    title = f"What the location instability of {table.name} is worth"
    drawn = fitted_table(heads, found, len(heads) - len(MEASURE_HEADINGS), width, NARROW)
    return [*_wrapped([title], width), drawn, ""]


def _wrapped(lines: list[str], width: int | None) -> list[str]:
    if width is None:
        return lines
    return [fill(line, width, break_long_words=False, break_on_hyphens=False) for line in lines]


def given_notes(report: Report) -> list[str]:
    """Return how many of the paper's values the sweep has, and how to see which ones it lacks."""
    listed = ", ".join(f"{values} of {of} in Table {table}" for table, values, of in report.given)
    hint = f" To list the missing ones: orch report {report.sweep} --strict" if report.missing else ""
    return [f"Values of the paper's tables: {listed}.{hint}"] if listed else []


def as_markdown(report: Report) -> str:
    """Format a report as Markdown."""
    parts = [f"# {report.title}", "", f"**{report.caption}**", ""]
    parts += [f"{note}\n" for note in given_notes(report)]
    parts += [f"> {line}\n" for line in report.caveats]
    for table in report.tables:
        parts += [f"## {table.title}", "", _rendered(table, TableFormat.MARKDOWN), ""]
        parts += [f"* {note}" for note in notes(table)] + [""]
        parts += _measures_markdown(table)
    parts += [f"* {note}" for note in (*legend(report), *overall_notes(report))]
    return "\n".join(parts).rstrip() + "\n"


def _measures_markdown(table: ReportTable) -> list[str]:
    drawn = _measures(table, TableFormat.MARKDOWN)
    return [f"### What the location instability of {table.name} is worth", "", drawn, ""] if drawn else []


def _measures(table: ReportTable, style: TableFormat) -> str:
    """Return the table of measures beside a table, formatted; empty if none was measured."""
    found, heads = measure_rows(table), measure_headings(table)
    return render_table(heads, found, len(heads) - len(MEASURE_HEADINGS), style) if found else ""


def legend(report: Report) -> list[str]:
    """Return what the columns of `measure_rows` are, if the report has any."""
    return [LEGEND] if any(measure_rows(table) for table in report.tables) else []


def as_latex(report: Report) -> str:
    """Format a report as LaTeX tables for `\\input`. The document must load the package booktabs."""
    return "\n".join(text for table in report.tables for text in (_latex_table(report, table), *_latex_worth(table)))


def as_csv(report: Report) -> str:
    """Format a report as CSV: one line per value, with the published value and ours."""
    lines = [value | {"ours_are": "" if value["ours"] is None else report.caption} for value in _records(report)]
    out = io.StringIO()
    writer = csv.DictWriter(out, list(lines[0]) if lines else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def as_json(report: Report) -> dict[str, Any]:
    """Convert a report to JSON values: `values`, `comparisons`, `missing`, `given`, and what they are of."""
    comparisons = [
        {"table": table.number, "backbone": block.backbone, "settings": block.setting, **asdict(block.comparison)}
        for table in report.tables
        for block in table.blocks
        if block.comparison and METRICS[table.metric].change_is_relative
    ]
    overall = [
        {"table": None, "backbone": found.backbone, "settings": found.setting, **asdict(found.comparison)}
        for found in report.overall
    ]
    missing = [{**asdict(cell), "place": cell.place._asdict()} for cell in report.missing]
    return {
        "sweep": report.sweep, "caption": report.caption, "caveats": list(report.caveats),
        "values": list(_records(report)), "comparisons": [*comparisons, *overall], "missing": missing,
        "given": [given._asdict() for given in report.given],
    }  # fmt: skip


def _rendered(table: ReportTable, form: TableFormat) -> str:
    return render_table(headings(table), [cells for _, cells in rows(table)], text_columns(table), form)


def _records(report: Report) -> Iterator[dict[str, Any]]:
    for table in report.tables:
        for block in table.blocks:
            for line in block.shown:
                for variant in VARIANTS:
                    yield _record(table, block, line, variant)


def _record(table: ReportTable, block: Block, line: Line, variant: str) -> dict[str, Any]:
    entry = line.entries[variant]
    return {
        "table": table.number, "metric": table.metric, **line.place._asdict(), "backbone": block.backbone,
        "variant": variant, "settings": block.setting, "published": entry.published, "ours": entry.ours,
        "difference": entry.difference, "accuracy": entry.accuracy, "jobs": entry.jobs, "filters": entry.filters,
        "filters_left_out": entry.left_out, "categories": entry.covered, "categories_of": entry.total,
        "chance": entry.chance, **(_worth(entry) if _has_worth(table) else dict.fromkeys(WORTH)),
    }  # fmt: skip


def _worth(entry: TableEntry) -> dict[str, Any]:
    return {name: getattr(entry.measures, name) for name in WORTH}


# -- cells --------------------------------------------------------------------------------------------------------


def _values(line: Line, metric: Metric, table: ReportTable) -> list[str]:
    cells = []
    for variant in VARIANTS:
        entry = line.entries[variant]
        seeds = f" ({entry.jobs})" if entry.jobs > 1 and line.place.category != AVERAGE else ""
        cells.append(format_number(entry.ours, metric.digits) + seeds)
        if table.number is not None:
            cells.append(format_number(entry.published, metric.digits))
            cells.append(format_number(entry.difference, metric.digits, sign=True))
    change = format_change(line.change, metric)
    return [*cells, change, *([] if table.number is None else [format_change(line.published_change, metric)])]


def _accuracies(line: Line) -> list[str]:
    digits = METRICS["accuracy_percent"].digits
    return [format_number(line.entries[variant].accuracy, digits) for variant in VARIANTS]


def _chance(line: Line) -> list[str]:
    chance = mean_of(entry.chance for entry in line.entries.values())
    return [format_number(chance, METRICS["accuracy_percent"].digits)]


def format_number(value: float | None, digits: int, sign: bool = False) -> str:
    """Round a value to `digits` decimals; None gives an empty cell's dash. `sign` writes `+` too."""
    if value is None:
        return EMPTY
    rounded = round(value, digits) + 0.0  # -0.0 becomes 0.0
    return f"{rounded:+.{digits}f}" if sign else f"{rounded:.{digits}f}"


def format_change(value: float | None, metric: Metric) -> str:
    """Format interpretable against ordinary: in per cent, or in the metric's own unit if its change is absolute."""
    if value is None or not metric.change_is_relative:
        return format_number(value, metric.digits, sign=True)
    return f"{value:+z.0%}"


def _has_settings(table: ReportTable) -> bool:
    return any(block.setting for block in table.blocks)


def _row_heading(table: ReportTable) -> str:
    return "category" if table.is_one_data_set else "networks"


def _network(found: Block | Overall) -> str:
    return f"{found.backbone} ({found.setting})" if found.setting else found.backbone


def _images_note(table: ReportTable) -> list[str]:
    """On which images ours are measured; the paper does not say on which its values are."""
    entries = (entry for block in table.blocks for line in block.lines for entry in line.entries.values())
    images = list(dict.fromkeys(words for entry in entries for words in entry.images))
    return [f"{'Ours' if table.number else 'The values'} are measured on {'; '.join(images)}."] if images else []


def _left_out_note(table: ReportTable) -> list[str]:
    lines = [line for block in table.blocks for line in block.lines if line.place.category != AVERAGE]
    if METRICS[table.metric].left_out is None or not any(line.has_ours for line in lines):
        return []
    entries = {variant: [line.entries[variant] for line in lines] for variant in VARIANTS}
    counts = (f"{sum(e.left_out for e in es)} of {sum(e.filters for e in es)} {v}" for v, es in entries.items())
    return [f"Filters left out because they never fire or have too few images: {', '.join(counts)}."]


def _seeds_note(table: ReportTable) -> list[str]:
    lines = (line for block in table.blocks for line in block.lines if line.place.category != AVERAGE)
    return [SEEDS_NOTE] if any(e.jobs > 1 for line in lines for e in line.entries.values()) else []


# -- LaTeX --------------------------------------------------------------------------------------------------------


def _latex_table(report: Report, table: ReportTable) -> str:
    caption = " ".join([f"{table.title}.", f"{report.caption}.", *report.caveats, *notes(table)])
    return _latex_float(caption, _rendered(table, TableFormat.LATEX))


def _latex_worth(table: ReportTable) -> list[str]:
    drawn = _measures(table, TableFormat.LATEX)
    caption = f"What the location instability of {table.name} is worth. {LEGEND}"
    return [_latex_float(caption, drawn)] if drawn else []


def _latex_float(caption: str, drawn: str) -> str:
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{escape_latex(caption)}}}", drawn, r"\end{table}", ""]
    return "\n".join(lines)
