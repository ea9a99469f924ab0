"""Which images train and which test: pure, seeded arithmetic on counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from numpy.random import PCG64, Generator

T = TypeVar("T")


def spaced(total: int, count: int) -> list[int]:
    """`count` of the indices below `total`, evenly spaced; all of them when there are no more."""
    if count >= total:
        return list(range(total))
    return [int((i + 0.5) * total / count) for i in range(count)]


def even_split(groups: Sequence[str], test_fraction: float) -> tuple[list[int], list[int]]:
    """Indices for training and for testing, test groups evenly spaced (as in the released code).

    Items of one group (objects in the same photograph) stay on the same side, so that no test image was trained on.
    """
    names = sorted(set(groups))
    return _divide(groups, {names[i] for i in spaced(len(names), _test_count(len(names), test_fraction))})


def seeded_split(groups: Sequence[str], test_fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """The same with test groups drawn at random, so that several seeds show how much a result owes to the split."""
    names = sorted(set(groups))
    return _divide(groups, {names[i] for i in pick(len(names), _test_count(len(names), test_fraction), seed)})


def _test_count(groups: int, test_fraction: float) -> int:
    """Both sides get one at least; a single group trains."""
    return min(max(1, round(test_fraction * groups)), groups - 1) if groups > 1 else 0


def _divide(groups: Sequence[str], chosen: set[str]) -> tuple[list[int], list[int]]:
    train = [i for i, name in enumerate(groups) if name not in chosen]
    return train, [i for i, name in enumerate(groups) if name in chosen]


def take_evenly(items: Sequence[T], limit: int | None) -> list[T]:
    return list(items) if limit is None else [items[i] for i in spaced(len(items), limit)]


def share_out(total: int, available: Sequence[int], seed: int) -> list[int]:
    """Draw `total` things from several stocks as evenly as they allow; the seed says who gives one more."""
    level = 0
    while level < max(available, default=0) and sum(min(stock, level + 1) for stock in available) <= total:
        level += 1
    shares = [min(stock, level) for stock in available]
    left = min(total, sum(available)) - sum(shares)
    order = Generator(PCG64(seed)).permutation(len(available))
    for i in [i for i in order if shares[i] < available[i]][:left]:
        shares[i] += 1
    return shares


def pick(total: int, count: int, seed: int) -> list[int]:
    """`count` of the indices below `total`, drawn at random, in order."""
    if count >= total:
        return list(range(total))
    return sorted(int(i) for i in Generator(PCG64(seed)).choice(total, size=count, replace=False))
