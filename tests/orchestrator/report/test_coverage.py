"""`--grid paper` provides every value that the paper printed, and has each network once."""

from __future__ import annotations

from collections import Counter

from orchestrator.planning.planner import PlannedSweep
from orchestrator.report.coverage import PaperNetwork, network_of, networks_behind, table_coverage
from schemas.job import JobSpec
from schemas.paper import published_values
from tests.support.doubles import Plan


def measured(sweep: PlannedSweep) -> list[JobSpec]:
    return [job for job in sweep.jobs if job.key not in sweep.upstream_keys]


def test_each_published_value_is_made_by_exactly_one_job_for_each_network_behind_it(plan_grid: Plan) -> None:
    jobs = Counter(map(network_of, measured(plan_grid("paper", profile="paper"))))
    needed = {network: value for value in published_values() for network in networks_behind(value)}
    missing = [value for network, value in needed.items() if jobs[network] != 1]
    assert missing == []
    assert set(jobs) == set(needed)  # and no network stands for nothing


def test_the_papers_grid_has_its_312_networks_and_fills_all_436_values(plan_grid: Plan) -> None:
    jobs = measured(plan_grid("paper", profile="paper"))
    assert len(jobs) == 37 * 4 * 2 + 6 * 2 + 2 * 2
    assert [(filled.table, filled.values) for filled in table_coverage(jobs)] == [
        (1, 56), (2, 12), (3, 248), (4, 56), (5, 8), (6, 16), (7, 40),
    ]  # fmt: skip
    assert all(filled.values == filled.of for filled in table_coverage(jobs))


def test_the_laptop_takes_alexnet_and_the_networks_that_the_paper_trained_on_several_categories(
    plan_grid: Plan,
) -> None:
    jobs = measured(plan_grid("paper"))
    assert {job.data.images for job in jobs} == {"generated"}
    assert Counter((job.model.backbone, job.is_single) for job in jobs) == {
        ("alexnet", True): 74, ("vgg_m", False): 6, ("vgg_s", False): 6, ("vgg16", False): 4,
    }  # fmt: skip


def test_an_average_stands_on_a_network_per_category(plan_grid: Plan) -> None:
    (average,) = (
        value
        for value in published_values()
        if (value.table, value.category, value.backbone, value.variant) == (4, "average", "vgg16", "ordinary")
    )
    behind = list(networks_behind(average))
    assert len(behind) == 6
    assert PaperNetwork(frozenset({"voc_part/cow"}), "logistic", "vgg16", "ordinary") in behind
    five = [job for job in measured(plan_grid("voc-part", profile="paper")) if job.data.categories != ("voc_part/cow",)]
    values = {filled.table: filled.values for filled in table_coverage(five)}
    assert values == {1: 56 - 16, 4: 56 - 16}  # every average falls, and the cow's own


def test_a_value_that_the_data_cannot_have_is_not_promised(plan_grid: Plan) -> None:
    jobs = measured(plan_grid("voc-part", profile="paper"))

    def values(**lacking: tuple[str, ...]) -> dict[int, int]:
        return {filled.table: filled.values for filled in table_coverage(jobs, lacking)}

    whole = values()
    assert whole == {1: 56, 4: 56, 7: 8}
    assert values(part_interpretability=("voc_part/cow",)) == {**whole, 1: 56 - 16}  # the cow's, and every average
    every = tuple(f"voc_part/{name}" for name in ("bird", "cat", "cow", "dog", "horse", "sheep"))
    assert values(part_interpretability=every) == {4: 56, 7: 8}
    assert values(location_instability=every) == {1: 56, 7: 8}  # accuracy needs neither


def test_networks_of_several_categories_fill_the_tables_for_several(plan_grid: Plan) -> None:
    jobs = measured(plan_grid("voc-part-multi", profile="paper"))
    assert len(jobs) == 16
    assert [(filled.table, filled.values) for filled in table_coverage(jobs)] == [(2, 12), (6, 12), (7, 12)]
