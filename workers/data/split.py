"""Decides which images train and which test, with seeded arithmetic on counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from numpy.random import PCG64, Generator

T = TypeVar("T")


def spaced(total: int, count: int) -> list[int]:
    """Return `count` evenly spaced indices below `total`, or all of them if `count` is not smaller."""
    if count >= total:
        return list(range(total))
    return [int((i + 0.5) * total / count) for i in range(count)]


def even_split(groups: Sequence[str], test_fraction: float) -> tuple[list[int], list[int]]:
    """Return the indices for training and for testing; test groups are evenly spaced, as in the released code.

    Items of one group (objects in the same photograph) stay on the same side, so that no test image was trained on.
    """
    names = sorted(set(groups))
    return _divide(groups, {names[i] for i in spaced(len(names), _test_count(len(names), test_fraction))})


def seeded_split(groups: Sequence[str], test_fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Return the indices for training and for testing; test groups are drawn at random.

    Several seeds show how much a result depends on the split.
    """
    names = sorted(set(groups))
    return _divide(groups, {names[i] for i in pick(len(names), _test_count(len(names), test_fraction), seed)})


def _test_count(groups: int, test_fraction: float) -> int:
    """Return the number of test groups: at least one for each side, and none of a single group."""
    return min(max(1, round(test_fraction * groups)), groups - 1) if groups > 1 else 0


def _divide(groups: Sequence[str], chosen: set[str]) -> tuple[list[int], list[int]]:
    train = [i for i, name in enumerate(groups) if name not in chosen]
    return train, [i for i, name in enumerate(groups) if name in chosen]


def take_evenly(items: Sequence[T], limit: int | None) -> list[T]:
    """Return at most `limit` items, evenly spaced; all of them where it is None."""
    return list(items) if limit is None else [items[i] for i in spaced(len(items), limit)]


def copies(items: Sequence[T], count: int) -> list[tuple[T, bool]]:
    """Return `count` copies of items: each one and its mirror image, all of them again while more are wanted.

    Items of the last, incomplete round are evenly spaced.

    Returns:
        Pairs of an item and whether its copy is mirrored; of every item as many of one kind as of the other, but for
        one odd copy.
    """
    rounds, left = divmod(count, 2 * len(items))
    last = take_evenly(items, -(-left // 2))
    whole, part = ([(item, mirrored) for item in some for mirrored in (False, True)] for some in (items, last))
    return whole * rounds + part[:left]


def copy_counts(train: int, test: int, fewest: int | None, most: int | None, test_fraction: float) -> tuple[int, int]:
    """Return the numbers of copies for training and for testing, of `train` and `test` images with mirror images."""
    total = max(2 * (train + test), fewest or 0)
    total = min(total, most or total)
    for_test = max(1, round(test_fraction * total))
    return total - for_test, for_test


def share_out(total: int, available: Sequence[int], seed: int) -> list[int]:
    """Return how many of `total` items to draw from each stock, as evenly as the stocks allow.

    Args:
        available: items in each stock.
        seed: decides which stocks give one item more.
    """
    level = 0
    while level < max(available, default=0) and sum(min(stock, level + 1) for stock in available) <= total:
        level += 1
    shares = [min(stock, level) for stock in available]
    left = min(total, sum(available)) - sum(shares)
    order = Generator(PCG64(seed)).permutation(len(available))
    for i in [i for i in order if shares[i] < available[i]][:left]:
        shares[i] += 1
    return shares


def repeat(items: Sequence[T], count: int) -> list[T]:
    """Return `count` items: all of them again and again, and evenly spaced ones at the end."""
    rounds, left = divmod(count, len(items)) if items else (0, 0)
    return [*items] * rounds + take_evenly(items, left)


def pick(total: int, count: int, seed: int) -> list[int]:
    """Return `count` indices below `total`, drawn at random, in ascending order."""
    if count >= total:
        return list(range(total))
    return sorted(int(i) for i in Generator(PCG64(seed)).choice(total, size=count, replace=False))
