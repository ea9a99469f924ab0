"""Tests of ordinary against interpretable networks over categories."""

from __future__ import annotations

import pytest

from orchestrator.report.significance import compare_families, holm

SIX = [(0.10, 0.05), (0.12, 0.06), (0.14, 0.08), (0.16, 0.07), (0.18, 0.10), (0.20, 0.09)]


def test_when_all_six_fall_the_one_sided_p_is_one_in_two_to_the_sixth() -> None:
    (found,) = compare_families([SIX], lower_is_better=True)
    assert found is not None
    assert (found.pairs, found.better, found.p) == (6, 6, pytest.approx(1 / 64))
    assert found.mean_change == pytest.approx((-1 / 2 - 1 / 2 - 3 / 7 - 9 / 16 - 4 / 9 - 11 / 20) / 6)
    assert found.interval is not None
    assert found.interval[0] < found.mean_change < found.interval[1] < 0


def test_the_test_has_a_side() -> None:
    rising = [(b, a) for a, b in SIX]
    (down,) = compare_families([rising], lower_is_better=True)
    (up,) = compare_families([rising], lower_is_better=False)
    assert down is not None
    assert up is not None
    assert (down.better, down.p) == (0, pytest.approx(1.0))
    assert (up.better, up.p) == (6, pytest.approx(1 / 64))


def test_fewer_than_five_pairs_that_differ_are_too_few_to_test() -> None:
    few, ties, none = compare_families([SIX[:4], SIX[:4] + [(0.1, 0.1)] * 3, []], lower_is_better=True)
    assert few is not None
    assert (few.p, few.interval, few.tests) == (None, None, 0)
    assert ties is not None
    assert (ties.pairs, ties.p) == (7, None)
    assert none is None


def test_equal_changes_have_an_interval_of_no_width() -> None:
    (found,) = compare_families([[(0.2, 0.1)] * 6], lower_is_better=True)
    assert found is not None
    assert found.interval == (pytest.approx(-0.5), pytest.approx(-0.5))


def test_holm_by_hand() -> None:
    # Sorted 0.01, 0.03, 0.04 times 3, 2, 1 is 0.03, 0.06, 0.04; the last may not fall below the one before.
    assert holm([0.04, 0.01, 0.03]) == [pytest.approx(0.06), pytest.approx(0.03), pytest.approx(0.06)]
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_correction_is_over_the_families_that_could_be_tested() -> None:
    first, second, few = compare_families([SIX, SIX, SIX[:2]], lower_is_better=True)
    assert first is not None
    assert second is not None
    assert few is not None
    assert first.p == second.p == pytest.approx(2 / 64)
    assert (first.tests, few.tests) == (2, 2)


def test_the_same_results_give_the_same_interval() -> None:
    assert compare_families([SIX], lower_is_better=True) == compare_families([SIX], lower_is_better=True)


def test_five_pairs_that_differ_are_just_enough_to_test() -> None:
    (found,) = compare_families([SIX[:5]], lower_is_better=True)
    assert found is not None
    assert (found.pairs, found.p, found.tests) == (5, pytest.approx(1 / 32), 1)
    assert found.interval is not None


def test_four_pairs_that_differ_among_five_have_an_interval_but_no_test() -> None:
    (found,) = compare_families([[*SIX[:4], (0.1, 0.1)]], lower_is_better=True)
    assert found is not None
    assert (found.pairs, found.p, found.tests) == (5, None, 0)
    assert found.interval is not None
