"""Building a report from a sweep's jobs."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.planning.diff import PlannedJob, PlanStatus
from orchestrator.report.build import build_report, check_table_numbers
from orchestrator.report.model import Line, Place, Report
from schemas.categories import CATEGORIES
from schemas.errors import SpecError
from schemas.job import JobSpec
from schemas.paper import published_values
from tests.support.doubles import metrics
from tests.support.reports import done, half, sweep_of

FOUR = ("cat", "cow", "dog", "sheep")
VOC = tuple(category.id for category in CATEGORIES if category.dataset == "voc_part")


def of(jobs: list[PlannedJob], *numbers: int) -> Report:
    return build_report("s", jobs, frozenset(), numbers)


def line(report: Report, number: int, category: str, backbone: str = "alexnet", **where: Any) -> Line:
    found = [
        line
        for table in report.tables
        if table.number == number
        for block in table.blocks
        if block.backbone == backbone and block.setting == where.get("setting", block.setting)
        for line in block.lines
        if line.place.category == category
        and all(getattr(line.place, name) == value for name, value in where.items() if name != "setting")
    ]
    assert len(found) == 1
    return found[0]


def four_of_six() -> list[PlannedJob]:
    _, jobs = sweep_of("all-categories", datasets=("voc",), categories=FOUR)
    return [done(job) for job in jobs]


def test_a_value_stands_beside_the_published_one_with_the_difference() -> None:
    _, jobs = sweep_of()
    entries = line(of([done(job) for job in jobs], 4), 4, "bird").entries
    assert (entries["ordinary"].ours, entries["ordinary"].published) == (0.2, 0.153)
    assert entries["ordinary"].difference == pytest.approx(0.047)
    assert entries["interpretable"].difference == pytest.approx(0.1 - 0.09)


def test_changes_are_interpretable_over_ordinary_for_both_sides() -> None:
    found = line(of(four_of_six(), 4), 4, "cat")
    assert found.change == -0.5
    assert found.published_change == pytest.approx(0.089 / 0.131 - 1)


def test_the_mean_of_all_categories_stands_beside_the_printed_mean() -> None:
    _, jobs = sweep_of()
    entry = line(of([done(job) for job in jobs], 4), 4, "average").entries["ordinary"]
    assert (entry.ours, entry.published, entry.covered, entry.total) == (pytest.approx(0.2), 0.140, 6, 6)


def test_the_mean_of_some_categories_stands_beside_the_published_mean_of_the_same() -> None:
    entry = line(of(four_of_six(), 4), 4, "average").entries["ordinary"]
    assert entry.published == pytest.approx((0.131 + 0.141 + 0.128 + 0.140) / 4)
    assert entry.difference == pytest.approx(0.2 - 0.135)
    assert (entry.covered, entry.total) == (4, 6)


def test_means_are_over_categories_that_have_both_variants() -> None:
    jobs = four_of_six()
    without = [job for job in jobs if job.spec.title != "voc-cat alexnet interpretable"]
    entries = line(of(without, 4), 4, "average").entries
    assert {entry.covered for entry in entries.values()} == {3}


def test_accuracy_is_in_per_cent_and_a_mean_of_some_categories_has_no_difference() -> None:
    _, jobs = sweep_of()
    whole = line(of([done(job) for job in jobs], 7), 7, "average", dataset="voc_part").entries["ordinary"]
    assert (whole.ours, whole.published, whole.difference) == (pytest.approx(90), 95.40, pytest.approx(-5.4))
    some = line(of(four_of_six(), 7), 7, "average", dataset="voc_part").entries["ordinary"]
    assert (some.ours, some.published, some.difference) == (pytest.approx(90), 95.40, None)


def test_a_change_of_accuracy_is_in_points() -> None:
    _, jobs = sweep_of("cub200")
    report = of([done(job, metrics(accuracy)) for job, accuracy in zip(jobs, (0.9, 0.8), strict=True)], 7)
    assert line(report, 7, "bird").change == pytest.approx(-10)


def test_seeds_are_averaged_and_counted() -> None:
    _, jobs = sweep_of({"grid": "cub200", "axes": {"seed": [0, 1, 2]}}, variants=("ordinary",))
    report = of([done(job, metrics(0.9, value)) for job, value in zip(jobs, (0.1, 0.2, 0.6), strict=True)])
    entry = line(report, 5, "bird").entries["ordinary"]
    assert (entry.ours, entry.jobs) == (pytest.approx(0.3), 3)


def test_an_ordinary_network_is_the_baseline_of_every_setting() -> None:
    _, jobs = sweep_of({"grid": "cub200", "axes": {"filter_loss.weight": [0.1, 1.0]}})
    report = of([done(job) for job in jobs])
    for setting in ("filter_loss.weight=0.1", "filter_loss.weight=1.0"):
        assert line(report, 5, "bird", setting=setting).change == -0.5


def test_settings_of_one_data_set_do_not_split_another() -> None:
    """In one sweep, networks of several categories have other training settings than those of one category."""
    rows = [{"data.categories": list(VOC), "loss": "softmax", "train.epochs": 80, "variant": v, "backbone": "alexnet"}
            for v in ("ordinary", "interpretable")]  # fmt: skip
    _, jobs = sweep_of({"grid": "voc-part", "include": rows})
    report = of([done(job) for job in jobs], 4, 6, 7)
    assert {block.setting for table in report.tables for block in table.blocks} == {""}
    assert line(report, 6, "all", dataset="voc_part", loss="softmax").change == -0.5
    assert line(report, 7, "all", dataset="voc_part", loss="softmax").change == 0


def test_a_network_for_some_of_the_categories_has_no_difference() -> None:
    def network(backbone: str, categories: tuple[str, ...]) -> Line:
        rows = {"base": {"data.categories": list(categories), "loss": "softmax"}, "axes": {"backbone": [backbone]}}
        _, jobs = sweep_of({**rows, "name": "multi"}, backbones=(), variants=("ordinary",))
        return line(of([done(job) for job in jobs], 6), 6, "all", backbone, dataset="voc_part", loss="softmax")

    some, whole = network("vgg_m", VOC[1:5]), network("vgg_m", VOC)
    assert (some.entries["ordinary"].ours, some.entries["ordinary"].difference, some.covered) == (0.2, None, 4)
    assert whole.entries["ordinary"].difference == pytest.approx(0.2 - 0.137)


def test_part_interpretability_fills_table_1() -> None:
    _, jobs = sweep_of(variants=("interpretable",))
    report = of([done(job, metrics(part_interpretability=0.6)) for job in jobs])
    assert [table.number for table in report.tables] == [1, 4, 7]
    assert line(report, 1, "average").entries["interpretable"].difference == pytest.approx(0.6 - 0.654)


def test_only_tables_with_a_value_are_shown() -> None:
    _, jobs = sweep_of("cub200")
    assert [table.number for table in of([done(job) for job in jobs]).tables] == [5, 7]
    assert [table.number for table in of([done(job) for job in jobs], 5).tables] == [5]
    assert of([]).tables == ()


def test_a_table_without_a_value_is_left_out_and_counted() -> None:
    _, jobs = sweep_of("cub200")
    report = of([done(job) for job in jobs], 2, 5)
    assert [table.number for table in report.tables] == [5]
    assert [(given.table, given.values) for given in report.given] == [(2, 0), (5, 2)]


def test_the_papers_values_that_the_sweep_gives_are_counted() -> None:
    report = of(four_of_six(), 4)
    assert report.given == ((4, 8, 56),)  # four categories and two variants; the mean needs all six


def test_accuracies_stand_beside_instability_and_its_comparison() -> None:
    report = of([done(job, half(job).model_copy(update={"test_accuracy": accuracy(job)})) for job in sweep_of()[1]], 4)
    entries = line(report, 4, "average").entries
    assert [entries[variant].accuracy for variant in ("ordinary", "interpretable")] == pytest.approx([90, 70])
    comparison = report.tables[0].blocks[0].comparison
    assert comparison is not None
    assert comparison.accuracy == pytest.approx((90, 70))


def accuracy(job: JobSpec) -> float:
    return 0.9 if job.model.variant == "ordinary" else 0.7


def test_a_network_without_results_has_no_line() -> None:
    (table,) = of(four_of_six(), 4).tables
    shown = {block.backbone: [line.place.category for line in block.shown] for block in table.blocks}
    assert shown["alexnet"] == [*FOUR, "average"]
    assert shown["vgg16"] == []


def test_the_papers_grid_puts_a_value_of_ours_beside_every_published_one() -> None:
    _, jobs = sweep_of("paper", profile="paper", backbones=())
    report = of([done(job, metrics(0.9, 0.1, part_interpretability=0.5)) for job in jobs])
    assert report.missing == ()
    entries = [e for t in report.tables for b in t.blocks for li in b.lines for e in li.entries.values()]
    assert len([entry for entry in entries if entry.published is not None]) == len(published_values())
    assert all(entry.difference is not None for entry in entries)


@pytest.mark.parametrize(
    ("fields", "filters", "answers"),
    [
        ({}, "held-out images (the published split)", "held-out images (the published split)"),
        ({"evaluation.split": "all"}, "all annotated images, training images", "held-out images (the published split)"),
        ({"data.split": "even"}, "held-out images (10%, evenly", "held-out images (10%, evenly spaced)"),
        ({"data.split": "seeded", "data.split_seed": 7}, "held-out images (10%, seed", "held-out images (10%, seed 7)"),
    ],
)
def test_every_table_says_on_which_images_ours_are_measured(fields: dict[str, Any], filters: str, answers: str) -> None:
    _, jobs = sweep_of("cub200", profile="paper", sets=fields)
    report = of([done(job) for job in jobs], 5, 7)
    instability, accuracy = (line(report, number, "bird").entries["ordinary"].images for number in (5, 7))
    assert instability[0].startswith(filters)
    assert accuracy == (answers,)


def test_pretraining_and_networks_over_several_data_sets_have_no_place() -> None:
    planned, jobs = sweep_of("cub200")
    mixed = next(job for job in planned.jobs if job.key in planned.upstream_keys)
    report = build_report("s", [done(mixed), *(done(job) for job in jobs)], planned.upstream_keys)
    assert report == build_report("s", [done(job) for job in jobs], frozenset())
    assert of([done(mixed)]).tables == ()


# -- missing cells --------------------------------------------------------------------------------------------------


def test_every_cell_that_the_paper_has_and_the_sweep_has_not_is_missing() -> None:
    report = of(four_of_six(), 4)
    assert len(report.missing) == 2 * 2 + 3 * 6 * 2  # two categories of AlexNet, and three backbones
    assert {cell.why for cell in report.missing} == {""}
    assert Place("single", "voc_part", "logistic", "horse") in {cell.place for cell in report.missing}


def test_the_mean_accuracy_lacks_the_networks_behind_it() -> None:
    report = of(four_of_six(), 7)
    lacking = {c.place.category for c in report.missing if c.backbone == "alexnet" and c.place.dataset == "voc_part"}
    assert lacking == {"bird", "horse"}


def test_a_missing_cell_says_what_became_of_its_job() -> None:
    _, jobs = sweep_of("cub200")
    ordinary, interpretable = jobs
    planned = [done(ordinary, metrics(0.9, None)), PlannedJob(interpretable, PlanStatus.FAILED, "Diverged: nan")]
    why = {cell.variant: cell.why for cell in of(planned, 5).missing if cell.backbone == "alexnet"}
    assert why == {"ordinary": "not measured", "interpretable": "failed"}


def test_nothing_is_missing_from_a_whole_table() -> None:
    _, jobs = sweep_of("cub200", backbones=("alexnet", "vgg_m", "vgg_s", "vgg16"))
    assert of([done(job) for job in jobs], 5).missing == ()


def test_a_table_that_the_paper_has_not_is_refused() -> None:
    with pytest.raises(SpecError, match="no Table 8 of results"):
        check_table_numbers([4, 8])


# -- comparisons and captions -----------------------------------------------------------------------------------------


def test_categories_are_compared_per_network_and_over_all_data_sets() -> None:
    _, voc = sweep_of()
    _, cub = sweep_of("cub200")
    report = of([done(job) for job in (*voc, *cub)], 4, 5)
    comparison = report.tables[0].blocks[0].comparison
    assert comparison is not None
    assert (comparison.pairs, comparison.better, comparison.mean_change) == (6, 6, pytest.approx(-0.5))
    assert [(o.backbone, o.comparison.pairs) for o in report.overall] == [("alexnet", 7)]
    assert of([done(job) for job in voc], 4).overall == ()


def full_size(job: JobSpec) -> JobSpec:
    return job.model_copy(update={"model": job.model.model_copy(update={"width": 1.0, "input_size": 224})})


def test_generated_animals_and_small_networks_are_never_taken_for_the_papers() -> None:
    _, jobs = sweep_of("voc-part")
    report = of([done(job, half(job).model_copy(update={"weights": "random"})) for job in jobs])
    assert report.caption.startswith("generated animals; filters measured on held-out images")
    assert report.caption.endswith("alexnet at width 0.25 and 128 px")
    said = " ".join(report.caveats)
    for word in ("generated", "smaller than the paper's", "start from random weights", "held-out images"):
        assert word in said


def test_the_papers_own_setting_has_no_caveats() -> None:
    for grid, measured in (("voc-part", "all"), ("cub200", "test")):
        _, jobs = sweep_of(grid, profile="paper")
        facts = {"images": "photographs", "weights": "torchvision", "measured_split": measured}
        ours = jobs[:2]  # of one category: several would share their weights
        report = of([done(full_size(job), half(job).model_copy(update=facts)) for job in ours])
        assert report.caveats == ()
        assert "photographs" in report.caption


@pytest.mark.parametrize(
    ("grid", "measured", "split", "said"),
    [
        ("voc-part", "all", "even", ""), ("voc-part", "test", "even", "measures them on all annotated ones"),
        ("cub200", "test", "official", ""), ("cub200", "all", "official", "takes the test images"),
        ("cub200", "test", "even", "takes the test images"),
    ],
)  # fmt: skip
def test_other_images_than_the_released_code_measures_are_a_caveat(
    grid: str, measured: str, split: str, said: str
) -> None:
    _, jobs = sweep_of(grid, profile="paper", sets={"data.split": split})
    facts = {"images": "photographs", "weights": "torchvision", "measured_split": measured}
    caveats = of([done(full_size(job), half(job).model_copy(update=facts)) for job in jobs[:2]]).caveats
    assert [said in caveat for caveat in caveats] == ([True] if said else [])


def test_categories_without_a_filter_are_named() -> None:
    _, jobs = sweep_of("voc-part-multi", sets={"loss": "softmax"})
    counts = {"voc-cat": 64, "voc-cow": 0}
    report = of([done(job, metrics(0.9, 0.1, assigned_filters=counts)) for job in jobs])
    assert any("voc-cow in 1" in text and "voc-cat" not in text for text in report.caveats)


def test_a_bound_on_part_interpretability_is_said() -> None:
    _, jobs = sweep_of(variants=("interpretable",))
    for units, said in ((0.25, True), (1.4, False)):
        found = metrics(part_interpretability=0.2, part_valid_units=units)
        report = of([done(job, found) for job in jobs], 1)
        assert any("0.25 valid units" in line for line in report.caveats) is said


@pytest.mark.parametrize(
    ("weights", "said"), [("an edge detector (hed.h5)", True), ("ImageNet (vgg.mat)", False), ("torchvision", False)]
)
def test_weights_that_are_not_imagenets_are_a_caveat(weights: str, said: bool) -> None:
    _, jobs = sweep_of()
    report = of([done(job, metrics(images="photographs", weights=weights)) for job in jobs], 4)
    assert any(f"start from {weights}" in line for line in report.caveats) is said
    assert f"weights from {weights}" in report.caption


def test_the_original_alexnet_stands_beside_the_published_alexnet() -> None:
    _, jobs = sweep_of(backbones=("alexnet_2012",))
    entry = line(of([done(job) for job in jobs], 4), 4, "bird", "alexnet_2012").entries["ordinary"]
    assert (entry.ours, entry.published) == (0.2, 0.153)


# -- imported data sets -------------------------------------------------------------------------------------------


def mittens(*categories: str, **found: Any) -> list[PlannedJob]:
    """Finished jobs of an imported data set, in both variants, with the metrics of `half` or others."""
    sweep = {"base": {"data": {"images": "photographs", "train_per_category": 50, "test_per_category": 5}}}
    axes = {"category": [[f"mittens/{name}"] for name in categories], "variant": ["ordinary", "interpretable"]}
    _, jobs = sweep_of({**sweep, "axes": axes, "profile": "laptop"})
    return [done(job, half(job).model_copy(update=found)) for job in jobs]


def test_an_imported_data_set_has_tables_of_its_own_without_published_values() -> None:
    report = of(mittens("cat", "dog"))
    assert [table.title for table in report.tables] == [
        "Imported data set mittens: location instability, one network per category",
        "Imported data set mittens: accuracy, one network per category",
    ]
    lines = {line.place.category: line for block in report.tables[0].blocks for line in block.lines}
    assert list(lines) == ["cat", "dog", "average"]
    assert lines["average"].change == -0.5
    assert all(entry.published is None for line in lines.values() for entry in line.entries.values())
    assert report.title == "s: results"
    assert not [caveat for caveat in report.caveats if "paper" in caveat]


def test_imported_values_never_enter_a_table_of_the_paper() -> None:
    _, voc = sweep_of("voc-part", categories=("cat",))
    own = mittens("cat", location_instability=0.9)
    report = of([*(done(job) for job in voc), *own])
    assert [table.number for table in report.tables] == [4, 7, None, None]
    assert line(report, 4, "cat").entries["ordinary"].ours == 0.2
    assert of([*(done(job) for job in voc), *own], 4) == of([done(job) for job in voc], 4)


def test_a_network_of_several_imported_categories_has_a_table_by_its_loss() -> None:
    base = {"data": {"images": "photographs", "train_per_category": 50, "test_per_category": 5}, "loss": "softmax"}
    axes = {"category": [["mittens/cat", "mittens/dog"]], "variant": ["ordinary", "interpretable"]}
    _, jobs = sweep_of({"base": base, "axes": axes, "profile": "laptop"})
    (table, _) = of([done(job) for job in jobs]).tables
    assert table.title.endswith("location instability, one network for all categories, softmax loss")
    (block,) = table.blocks
    assert [(each.place.category, each.covered, each.total) for each in block.lines] == [("all", 2, 2)]


def test_without_landmarks_the_report_says_that_there_is_no_instability() -> None:
    report = of(mittens("cat", location_instability=None))
    assert [table.metric for table in report.tables] == ["accuracy_percent"]
    assert any(caveat.startswith("No location instability of mittens cat: ") for caveat in report.caveats)
