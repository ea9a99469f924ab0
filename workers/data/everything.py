"""Which photographs of a data root pre-training on everything labelled uses, and which it leaves to the jobs' tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from schemas.categories import NEGATIVE_KEY
from schemas.data_spec import SPECIES_OF, DataSpec
from schemas.errors import DataError
from workers.data.data_root import DataRoot
from workers.data.readers.cub import name_in_cub
from workers.data.readers.records import AnnotatedObject
from workers.data.readers.sources import FURTHER_BIRDS, NEGATIVES, animal

MIN_OF_A_KIND = 10
"""Readable photographs that a kind needs: with fewer, none may be held out to measure its accuracy."""

SplitStock = Callable[[str], tuple[list[int], list[int]]]
"""Divides the objects of a stock into indices for training and for testing."""


def kind_of(stock: str, record: AnnotatedObject) -> str:
    """Return the class of a photograph: CUB's species, the animal in whichever data set, or `negatives`.

    Args:
        stock: a category, or another of `DataRoot.stocks`.
    """
    if stock in (SPECIES_OF, FURTHER_BIRDS):
        return record.image.parent.name
    return NEGATIVES if has_negatives(stock) else animal(stock)


def has_negatives(stock: str) -> bool:
    """Whether a stock holds photographs without a category: the folder of negatives, or that of an imported set."""
    return stock == NEGATIVES or stock.endswith(f"/{NEGATIVE_KEY}")


def everything_of(data: DataSpec, root: DataRoot) -> DataSpec:
    """Return the data of a pre-training with the categories and the kinds that a root has enough photographs of.

    Kinds are in the order of the stocks, and species in that of their names.

    Args:
        data: gives the split.

    Raises:
        DataError: fewer than two kinds have enough photographs, or an annotation file cannot be understood.
    """
    found: dict[str, Counter[str]] = {}
    for stock in root.stocks():
        found[stock] = Counter(kind_of(stock, record) for record in _readable(root, stock))
    counts = sum(found.values(), Counter[str]())
    kinds = {kind for kind, count in counts.items() if count >= MIN_OF_A_KIND}
    names = tuple(dict.fromkeys(kind for of_stock in found.values() for kind in sorted(of_stock) if kind in kinds))
    if len(names) < 2:
        raise DataError(
            f"Pre-training on everything labelled needs two kinds of {MIN_OF_A_KIND} photographs each, and "
            f"{root.place} has {', '.join(names) or 'none'}. Add photographs, or choose other `weights`."
        )
    categories = tuple(stock for stock in root.present_categories() if kinds & set(found[stock]))
    return data.model_copy(update={"categories": categories, "label_names": names})


def held_out(root: DataRoot, split: SplitStock) -> set[str]:
    """Return the photographs that jobs may be tested on, whatever their category and negatives.

    These are the test sides of every stock, also of those that are no kind, and every other copy of such a photograph:
    a file with the same content, the same object's file in another category, or another edition of a bird.

    Returns:
        Values of `AnnotatedObject.photograph`.
    """
    tested: set[str] = set()
    names_of: list[tuple[str, set[str]]] = []
    for stock in root.stocks():
        each = list(_names(root, stock))
        names_of += each
        for i in split(stock)[1]:
            tested |= each[i][1]
    return {photograph for photograph, names in names_of if names & tested}


def _names(root: DataRoot, stock: str) -> Iterator[tuple[str, set[str]]]:
    """Yield each object's photograph, and everything by which another copy of it can be recognised."""
    for record, facts in zip(root.records(stock), root.category_facts(stock), strict=True):
        names = {record.photograph, str(record.image)}
        if facts.is_readable:
            names.add(facts.digest)
        if stock in (SPECIES_OF, FURTHER_BIRDS):
            names.add(name_in_cub(record))
        yield record.photograph, names


def _readable(root: DataRoot, stock: str) -> Iterator[AnnotatedObject]:
    for record, facts in zip(root.records(stock), root.category_facts(stock), strict=True):
        if facts.is_readable:
            yield record
