"""How much of a difference follows the part, in words and in tables, and for results that lack the measures."""

from __future__ import annotations

import re
from typing import Any

import pytest

from orchestrator.report.build import build_report
from orchestrator.report.formats import as_csv, as_json, as_latex, as_markdown, as_text, measure_headings, measure_rows
from orchestrator.report.html import as_html
from orchestrator.report.measures import (
    HEADINGS,
    LEGEND,
    UNMEASURED,
    Measures,
    cells,
    headline,
    interval_of,
    of_jobs,
    over_categories,
    part_that_follows,
    share_text,
)
from orchestrator.report.model import Report
from schemas.results import JobMetrics
from tests.support.doubles import metrics
from tests.support.reports import done, sweep_of


def measured(real: float, dealt: float, **more: Any) -> JobMetrics:
    return metrics(
        0.9, real, shuffled_instability=dealt, tracking_share=1 - real / dealt, chance_accuracy=0.5, **more
    )  # fmt: skip


def test_a_headline_says_by_how_much_and_how_much_of_it_follows() -> None:
    before, after = of_jobs([measured(0.12, 0.125)]), of_jobs([measured(0.08, 0.1)])
    # The drop is 0.040, of which shuffled peaks have 0.025 too.
    assert part_that_follows(before, after) == pytest.approx(0.375)
    assert headline(before, after) == (
        "Interpretable is 33% below ordinary (0.1200 to 0.0800). Tracking share: 4% ordinary, 20% interpretable (0 for "
        "peaks that ignore the image). 38% of the drop follows the part; the rest is peaks that move less."
    )


@pytest.mark.parametrize(
    ("real", "dealt", "words"),
    [
        (0.08, 0.08, "Nothing of the drop follows the part"),
        (0.08, 0.125, "All of the drop follows the part."),
        (0.13, 0.14, "Interpretable is 8% above ordinary"),
    ],
)
def test_the_drop_is_split_only_where_it_can_be(real: float, dealt: float, words: str) -> None:
    text = headline(of_jobs([measured(0.12, 0.125)]), of_jobs([measured(real, dealt)]))
    assert words in text
    assert ("of the drop" in text) == (real < 0.12)


def test_held_out_images_are_named_only_where_others_are_measured_too() -> None:
    both = {"measured_images": 100, "held_out_images": 10}
    before, after = (
        measured(0.12, 0.13, held_out_instability=0.16, **both),
        measured(0.08, 0.1, held_out_instability=0.12, **both),
    )
    assert headline(of_jobs([before]), of_jobs([after])).endswith("On held-out images alone: 0.1600 to 0.1200 (-25%).")
    alone = {"measured_images": 100, "held_out_images": 100}
    same = [of_jobs([job.model_copy(update=alone)]) for job in (before, after)]
    assert "held-out" not in headline(*same)


def test_older_results_have_no_measures_and_say_so() -> None:
    old = of_jobs([metrics(0.9, 0.12)])
    assert (old.shuffled, old.tracking_interval) == (None, None)
    assert headline(old, old).endswith("How much of it follows the part was not measured.")
    assert headline(UNMEASURED, old) == ""
    assert set(cells(UNMEASURED)) == {"-"}
    assert len(cells(UNMEASURED)) == len(HEADINGS)


def test_one_job_has_its_interval_over_images_and_several_one_over_their_spread() -> None:
    one = measured(0.1, 0.125, intervals={"tracking_share": (0.1, 0.3)})
    assert of_jobs([one]).tracking_interval == (0.1, 0.3)
    assert of_jobs([one] * 4).tracking_interval is None
    assert of_jobs([one] * 5).tracking_interval == pytest.approx((0.2, 0.2))
    categories = [of_jobs([measured(0.1, 0.1 / (1 - share))]) for share in (0.0, 0.1, 0.2, 0.3, 0.4)]
    together = over_categories(categories)
    low, high = together.tracking_interval or (0, 0)
    assert together.tracking == pytest.approx(0.2)
    assert 0.05 < low < 0.2 < high < 0.35
    assert over_categories(categories[:3]).tracking_interval is None


def test_an_interval_over_categories_and_seeds_draws_both() -> None:
    alike = interval_of([[0.1, 0.3], [0.1, 0.3], [0.1, 0.3]])
    apart = interval_of([[0.2, 0.2], [0.0, 0.0], [0.4, 0.4]])
    assert alike is not None
    assert apart is not None
    assert 0.1 <= alike[0] < 0.2 < alike[1] <= 0.3
    assert (apart[0], apart[1]) == pytest.approx((0.0, 0.4))
    assert interval_of([[], [0.1, 0.2]]) is None
    assert interval_of([[0.1, 0.2, 0.4], [0.3, 0.3]]) == interval_of([[0.1, 0.2, 0.4], [0.3, 0.3]])


def test_shares_are_in_per_cent() -> None:
    assert share_text(0.254, (-0.004, 0.4)) == "25% [0, 40]"
    assert share_text(None) == "-"


@pytest.fixture(scope="module")
def voc() -> Report:
    """Table 4 with every measure."""
    _, jobs = sweep_of(categories=("cat", "dog"))
    found = [
        measured(*((0.12, 0.125) if job.model.variant == "ordinary" else (0.08, 0.1)), stability=0.5) for job in jobs
    ]
    return build_report("s", [done(*pair) for pair in zip(jobs, found, strict=True)], frozenset(), (4,))


def test_every_value_of_a_table_has_its_worth(voc: Report) -> None:
    (table,) = voc.tables
    assert measure_headings(table)[:3] == ["network", "category", "variant"]
    assert [row[:3] for row in measure_rows(table)] == [
        ["alexnet", category, variant]
        for category in ("cat", "dog", "mean of 2 of 6")
        for variant in ("ordinary", "interpretable")
    ]
    assert [row[3:6] for row in measure_rows(table, only_means=True)] == [
        ["0.120", "0.125", "4%"], ["0.080", "0.100", "20%"],
    ]  # fmt: skip


def test_every_format_says_how_much_follows(voc: Report) -> None:
    sentence = "38% of the drop follows the part"
    for text in (as_text(voc), as_markdown(voc), as_html(voc)):
        assert sentence in text
        assert text.count("What the location instability of Table 4 is worth") == 1
        assert text.count(LEGEND) == 1
    latex = re.sub(" +", " ", as_latex(voc))
    assert latex.count(r"\begin{table}") == latex.count(r"\end{table}") == 2
    assert "What the location instability of Table 4 is worth. shuffled: peaks dealt out" in latex
    assert r"alexnet & cat & interpretable & 0.080 & 0.100 & 20\%" in latex
    assert not re.search(r"(?<!\\)[%_#$]", latex)
    assert "shuffled,tracking" in as_csv(voc).splitlines()[0]
    found = as_json(voc)
    assert [value["tracking"] for value in found["values"]] == pytest.approx([0.04, 0.2] * 3)
    assert [value["chance"] for value in found["values"]] == [50.0] * 6
    assert found["comparisons"][0]["measures"][1]["tracking"] == pytest.approx(0.2)


def test_a_p_value_says_that_its_categories_share_their_weights() -> None:
    words = "both for the starting weights that the categories share"

    def said(**sets: Any) -> list[bool]:
        _, jobs = sweep_of(sets=sets)
        results = [
            metrics(0.9, (0.2 if job.model.variant == "ordinary" else 0.1) + n / 500) for n, job in enumerate(jobs)
        ]
        report = build_report("s", [done(*pair) for pair in zip(jobs, results, strict=True)], frozenset(), (4,))
        (found,) = (block.comparison for block in report.tables[0].blocks if block.comparison)
        assert found.p is not None
        return [found.shares_weights, *(words in form(report) for form in (as_text, as_markdown, as_html, as_latex))]

    assert said() == [True] * 5
    assert said(weights={"source": "random"}) == [False] * 5


def test_a_report_of_older_results_has_no_table_of_measures() -> None:
    _, jobs = sweep_of(categories=("cat",))
    report = build_report("s", [done(job) for job in jobs], frozenset(), (4,))
    assert measure_rows(report.tables[0]) == []
    assert "is worth" not in as_text(report) + as_html(report)


def test_categories_that_share_their_weights_are_said_to_be_no_independent_samples() -> None:
    said = "start from the same pre-trained weights"
    _, several = sweep_of(categories=("cat", "dog"))
    _, one = sweep_of(categories=("cat",))
    _, random = sweep_of(categories=("cat", "dog"), sets={"weights": {"source": "random"}})
    answers = [
        any(said in line for line in build_report("s", [done(job) for job in jobs], frozenset(), (4,)).caveats)
        for jobs in (several, one, random)
    ]
    assert answers == [True, False, False]


def test_measures_are_means_of_what_is_there() -> None:
    assert over_categories([Measures(near=0.2), Measures(near=0.4), UNMEASURED]).near == pytest.approx(0.3)
