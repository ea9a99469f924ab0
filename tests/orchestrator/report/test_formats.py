"""A report in every format."""

from __future__ import annotations

import csv
import io
import re
from html.parser import HTMLParser

import pytest

from orchestrator.report.build import build_report
from orchestrator.report.dot_plot import panels
from orchestrator.report.formats import (
    as_csv,
    as_json,
    as_latex,
    as_markdown,
    as_text,
    format_change,
    format_number,
    headings,
    label,
    notes,
)  # fmt: skip
from orchestrator.report.gallery import MAX_NETWORKS, Gallery, Picture, Plate, Section, choose_jobs
from orchestrator.report.html import MEASURED_AS, as_html
from orchestrator.report.measures import WORTH
from orchestrator.report.model import METRICS, Report
from tests.support.doubles import metrics
from tests.support.reports import done, half, sweep_of


@pytest.fixture(scope="module")
def bird() -> Report:
    """Table 5 with AlexNet only, and two seeds of the interpretable one."""
    _, jobs = sweep_of({"grid": "cub200", "axes": {"seed": [0, 1]}})
    kept = [job for job in jobs if job.model.variant == "interpretable" or job.seed == 0]
    found = [
        half(job).model_copy(
            update={"filters": 64, "filters_left_out": job.seed, "weights": "random", "chance_accuracy": 0.5}
        )
        for job in kept
    ]
    return build_report("birds", [done(*pair) for pair in zip(kept, found, strict=True)], frozenset(), (5,))


def test_text_is_aligned(bird: Report) -> None:
    lines = as_text(bird).splitlines()
    start = lines.index("Table 5. Location instability, one network per category, CUB-200-2011")
    assert lines[0].startswith("sweep birds: generated animals; ")
    assert lines[1] == (
        "Values of the paper's tables: 2 of 8 in Table 5. To list the missing ones: orch report birds --strict"
    )
    assert lines[2].startswith("! The animals are generated")
    assert lines[start + 1 :] == [
        "network  category  ordinary  paper   diff.    interp.  paper   diff.  change  paper  acc. ord.  acc. int.  "
        "chance",
        "alexnet  bird         0.200  0.150  +0.050  0.100 (2)  0.070  +0.030    -50%   -53%      90.00      90.00  "
        " 50.00",
        "Ours are measured on held-out images, generated separately.",
        "alexnet: interpretable below ordinary in 1 of 1 categories, mean change -50.0% (mean accuracy 90.00 % "
        "ordinary, 90.00 % interpretable, chance 50.00 %); too few categories that differ for a test (fewer than 5). "
        "How much of it follows the part was not measured.",
        "Filters left out because they never fire or have too few images: 0 of 64 ordinary, 1 of 128 interpretable.",
        "(n): mean over n seeds.",
    ]


def squeezed(text: str) -> str:
    """The text without the padding of its columns."""
    return re.sub("--+", "-", re.sub(" +", " ", text))


def test_markdown_has_a_table(bird: Report) -> None:
    text = squeezed(as_markdown(bird))
    assert "## Table 5. Location instability" in text
    assert "| interp. | paper | diff. | change | paper | acc. ord. | acc. int. | chance |\n" in text
    assert "\n|:-|:-|-:|-:|-:|-:|-:|-:|-:|-:|-:|-:|-:|\n" in text
    assert "| alexnet | bird | 0.200 | 0.150 | +0.050 | 0.100 (2) | 0.070 | +0.030 | -50% | -53% | 90.00 |" in text
    assert "> The animals are generated" in text


def test_latex_is_escaped(bird: Report) -> None:
    text = squeezed(as_latex(bird))
    assert r"\toprule" in text
    assert r"alexnet & bird & 0.200 & 0.150 & +0.050 & 0.100 (2)" in text
    assert r"-50\% & -53\% & 90.00 & 90.00 & 50.00 \\" in text
    assert r"\begin{tabular}{llrrrrrrrrrrr}" in text
    assert "The animals are generated" in text
    assert not re.search(r"(?<!\\)[%_#$]", text)
    assert text.count(r"\begin{") == text.count(r"\end{") == 2


def labels(report: Report, backbone: str = "alexnet") -> list[str]:
    blocks = [(table, block) for table in report.tables for block in table.blocks if block.backbone == backbone]
    return [label(line, table) for table, block in blocks for line in block.lines]


def test_a_network_of_several_categories_is_labelled_with_their_number_and_its_loss() -> None:
    _, jobs = sweep_of("voc-part-multi", sets={"evaluation.split": "test"})
    report = build_report("s", [done(job) for job in jobs], frozenset(), (2, 6))
    both_losses = ["VOC Part, 6 categories, logistic loss", "VOC Part, 6 categories, softmax loss"]
    assert [line for line in as_text(report).splitlines() if "6 categories, softmax loss" in line]
    assert labels(report)[-2:] == both_losses
    assert labels(report, "vgg_m")[:2] == both_losses
    assert "ILSVRC Part, 30 categories, logistic loss" in labels(report, "vgg_m")
    assert headings(report.tables[0])[:2] == ["network", "networks"]


def test_a_network_of_some_of_the_categories_is_labelled_with_both_numbers() -> None:
    _, jobs = sweep_of("voc-part-multi", categories=("cat", "cow", "dog", "sheep"))
    report = build_report("s", [done(job) for job in jobs], frozenset(), (6,))
    assert labels(report) == [f"VOC Part, 4 of 6 categories, {loss} loss" for loss in ("logistic", "softmax")]


def test_a_table_of_several_data_sets_labels_each_with_how_many_networks_it_stands_for() -> None:
    _, voc = sweep_of("all-categories", datasets=("voc",), categories=("cat", "cow"))
    _, cub = sweep_of("cub200")
    report = build_report("s", [done(job) for job in (*voc, *cub)], frozenset(), (7,))
    assert {"CUB200, one category", "VOC Part, one category each, mean of 2 of 6"} <= set(labels(report))
    assert "ILSVRC Part, one category each, mean of 30" in labels(report)


def test_a_table_of_one_data_set_labels_its_lines_with_the_category_alone() -> None:
    _, jobs = sweep_of()
    report = build_report("s", [done(job) for job in jobs], frozenset(), (4,))
    assert labels(report) == ["bird", "cat", "cow", "dog", "horse", "sheep", "mean of 6"]
    assert headings(report.tables[0])[:2] == ["network", "category"]


def test_several_tests_are_said_to_be_corrected_and_a_single_one_is_not() -> None:
    def sentences(*backbones: str) -> list[str]:
        _, jobs = sweep_of(backbones=backbones)
        (table,) = build_report("s", [done(job) for job in jobs], frozenset(), (4,)).tables
        return [note for note in notes(table) if "Wilcoxon" in note]

    start = (
        "interpretable below ordinary in 6 of 6 categories, mean change -50.0% (mean accuracy 90.00 % ordinary, "
        "90.00 % interpretable) (95 % interval -50.0% to -50.0%), "
    )
    end = "both for the starting weights that the categories share. How much of it follows the part was not measured."
    assert sentences("alexnet") == [f"alexnet: {start}one-sided Wilcoxon p = 0.016, {end}"]
    assert sentences("alexnet", "vgg16") == [
        f"{backbone}: {start}one-sided Wilcoxon p = 0.031, Holm over 2, {end}" for backbone in ("alexnet", "vgg16")
    ]


def test_csv_has_a_line_per_value(bird: Report) -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(bird))))
    assert len(rows) == 2
    assert rows[1].pop("ours_are").startswith("generated animals; filters measured on held-out images")
    assert float(rows[1].pop("difference")) == pytest.approx(0.03)
    assert {rows[1].pop(name) for name in WORTH} == {""}
    assert rows[1] == {
        "table": "5", "metric": "location_instability", "task": "single", "dataset": "cub200", "loss": "logistic",
        "category": "bird", "backbone": "alexnet", "variant": "interpretable", "settings": "", "published": "0.07",
        "ours": "0.1", "accuracy": "90.0", "jobs": "2", "filters": "128", "filters_left_out": "1",
        "categories": "1", "categories_of": "1", "chance": "50.0",
    }  # fmt: skip


def test_json_has_values_comparisons_and_what_is_missing(bird: Report) -> None:
    answer = as_json(bird)
    assert answer["values"][0]["ours"] == 0.2
    assert [found["instability"] for found in answer["comparisons"][0].pop("measures")] == [0.2, 0.1]
    assert answer["comparisons"] == [
        {"table": 5, "backbone": "alexnet", "settings": "", "pairs": 1, "better": 1, "mean_change": -0.5,
         "interval": None, "p": None, "tests": 0, "accuracy": (90.0, 90.0), "chance": 50.0, "shares_weights": False},
    ]  # fmt: skip
    assert answer["missing"][0]["place"]["category"] == "bird"
    assert len(answer["missing"]) == 6
    assert answer["given"] == [{"table": 5, "values": 2, "of": 8}]


NUMBER = re.compile(r"[-+]?\d+\.\d+%?")


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120])
def test_text_fits_any_width_and_keeps_its_numbers_whole(bird: Report, width: int) -> None:
    lines = as_text(bird, width).splitlines()
    assert max(map(len, lines)) <= max(width, len("interpretability"))
    start = next(i for i, text in enumerate(lines) if text.startswith("Table 5."))
    table = lines[start : next(i for i, text in enumerate(lines) if text.startswith("Ours are"))]
    assert {"0.200", "0.100", "90.00"} <= set(NUMBER.findall(" ".join(table)))


def test_rounding_leaves_no_minus_before_a_zero() -> None:
    assert format_number(-0.0001, 3, sign=True) == "+0.000"
    assert format_number(None, 3) == "-"
    assert format_change(-0.001, METRICS["location_instability"]) == "+0%"
    assert format_change(-1.25, METRICS["accuracy_percent"]) == "-1.25"


class Sources(HTMLParser):
    """Collects the addresses that a page loads or links to."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found += [v or "" for name, v in attributes if name in ("src", "href", "xlink:href") and tag != "use"]


def test_the_page_needs_nothing_beside_it(bird: Report) -> None:
    plate = Plate("Figure 4", [Picture("cub-bird alexnet <ordinary>", "data:image/webp;base64,AA")])
    page = as_html(bird, Gallery((Section("cub-bird, alexnet", [plate]),), left_out=3))
    parser = Sources()
    parser.feed(page)
    assert parser.found
    assert all(source.startswith(("#", "data:")) for source in parser.found)
    assert "@import" not in page
    assert "&lt;ordinary&gt;" in page
    assert "3 more" in page
    assert "<svg" in page
    assert page.index(MEASURED_AS["location_instability"][:40]) < page.index("<svg")
    assert "The animals are generated" in page
    assert "0.100 (2)" in page


def test_equal_reports_are_equal_pages(bird: Report) -> None:
    assert as_html(bird) == as_html(bird)


def test_the_dot_plot_has_a_panel_per_network_with_the_categories_that_have_values() -> None:
    _, jobs = sweep_of("all-categories", datasets=("voc",), categories=("cat", "cow"), backbones=("alexnet", "vgg16"))
    some = [done(job) for job in jobs if job.model.backbone == "alexnet" or job.model.variant == "ordinary"]
    drawn = panels(build_report("s", some, frozenset()), "location_instability")
    assert [(panel.title, [line.place.category for line in panel.lines]) for panel in drawn] == [
        ("alexnet", ["cat", "cow"])
    ]


def test_the_gallery_has_both_variants_of_every_category_the_ordinary_one_first() -> None:
    _, jobs = sweep_of()
    groups, left_out = choose_jobs([done(job) for job in reversed(jobs)])
    assert sorted(" and ".join(job.spec.title for job in group) for group in groups) == [
        f"voc-{name} alexnet ordinary and voc-{name} alexnet interpretable"
        for name in ("bird", "cat", "cow", "dog", "horse", "sheep")
    ]
    assert left_out == 0


def test_a_gallery_without_pairs_shows_what_there_is() -> None:
    _, jobs = sweep_of()
    assert [[job.spec.title for job in group] for group in choose_jobs([done(jobs[0], metrics())])[0]] == [
        [jobs[0].title]
    ]


def test_a_large_sweep_is_spread_out_over_the_gallery() -> None:
    _, jobs = sweep_of("all-categories")
    groups, left_out = choose_jobs([done(job) for job in jobs])
    assert (len(groups), left_out) == (MAX_NETWORKS, 37 - MAX_NETWORKS)
    assert groups[0][0].spec.title == "ilsvrc-goldfish alexnet ordinary"
    assert {group[0].spec.data.categories[0].split("/")[0] for group in groups} == {
        "ilsvrc_animal_part",
        "voc_part",
        "cub200",
    }
