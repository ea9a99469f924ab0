"""Splits and draws: evenly spaced, disjoint, seeded."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.data.split import even_split, pick, seeded_split, share_out, spaced, take_evenly

COUNT = st.integers(0, 200)


def test_spacing_by_hand() -> None:
    assert spaced(10, 2) == [2, 7]
    assert spaced(3, 5) == [0, 1, 2]


@settings(deadline=None)
@given(total=st.integers(1, 300), fraction=st.floats(0.01, 0.99))
def test_every_item_is_on_one_side(total: int, fraction: float) -> None:
    train, test = even_split([f"{i:04d}" for i in range(total)], fraction)
    assert sorted(train + test) == list(range(total))
    if total > 1:
        assert abs(len(test) - fraction * total) <= 1
        assert 0 < len(test) < total


def test_objects_of_one_photograph_stay_together() -> None:
    groups = [f"{i // 3:02d}" for i in range(60)]
    train, test = even_split(groups, 0.1)
    assert {groups[i] for i in train} & {groups[i] for i in test} == set()
    assert len(test) == 6


@settings(deadline=None)
@given(total=st.integers(1, 100), fraction=st.floats(0.01, 0.99), seed=st.integers(0, 9))
def test_a_seeded_split_is_as_large_as_the_even_one_and_keeps_photographs_together(
    total: int, fraction: float, seed: int
) -> None:
    groups = [f"{i // 2:04d}" for i in range(total)]
    train, test = seeded_split(groups, fraction, seed)
    assert (train, test) == seeded_split(groups, fraction, seed)
    assert sorted(train + test) == list(range(total))
    assert {groups[i] for i in train} & {groups[i] for i in test} == set()
    assert len({groups[i] for i in test}) == len({groups[i] for i in even_split(groups, fraction)[1]})


def test_another_seed_draws_another_split() -> None:
    groups = [str(i) for i in range(100)]
    assert len({tuple(seeded_split(groups, 0.1, seed)[1]) for seed in range(5)}) == 5


@settings(deadline=None)
@given(total=COUNT, stocks=st.lists(st.integers(0, 40), min_size=1, max_size=40), seed=st.integers(0, 5))
def test_shares_add_up_and_are_as_even_as_the_stocks_allow(total: int, stocks: list[int], seed: int) -> None:
    shares = share_out(total, stocks, seed)
    assert sum(shares) == min(total, sum(stocks))
    assert all(0 <= share <= stock for share, stock in zip(shares, stocks, strict=True))
    unexhausted = [share for share, stock in zip(shares, stocks, strict=True) if share < stock]
    assert not unexhausted or max(shares) <= min(unexhausted) + 1


def test_the_seed_says_who_gives_one_more() -> None:
    assert len({tuple(share_out(5, [9] * 4, seed)) for seed in range(10)}) > 1


@settings(deadline=None)
@given(total=COUNT, count=COUNT, seed=st.integers(0, 5))
def test_picks_are_distinct_and_repeatable(total: int, count: int, seed: int) -> None:
    picked = pick(total, count, seed)
    assert len(set(picked)) == len(picked) == min(total, count)
    assert picked == pick(total, count, seed)


@pytest.mark.parametrize(("limit", "expected"), [(None, "abcd"), (2, "bd"), (9, "abcd")])
def test_a_cap_takes_evenly(limit: int | None, expected: str) -> None:
    assert "".join(take_evenly("abcd", limit)) == expected
