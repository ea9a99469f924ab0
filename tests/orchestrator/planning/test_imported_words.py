"""The name of an imported category means the same in a sweep file, in `--set` and on the command line."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.planning.request import SweepRequest, define
from orchestrator.planning.typed import CATEGORIES_FIELD
from schemas.errors import SpecError
from schemas.sweep import SweepSpec

TABBY, OWN_CAT, SNOWY = ("mittens/tabby",), ("mittens/cat",), ("mittens/snowy",)
IMPORTED = (*TABBY, *OWN_CAT, *SNOWY)
BASE = {"backbone": "alexnet", "variant": "ordinary"}


def categories(sweep: dict[str, Any], imported: tuple[str, ...] = IMPORTED, **options: Any) -> tuple[Any, ...]:
    found = define(SweepRequest(SweepSpec.model_validate(sweep), imported=imported, data_root="x", **options))
    rows = [row["data"]["categories"] for row in found.include]
    return (*found.axes.get(CATEGORIES_FIELD, ()), *rows)


@pytest.mark.parametrize(
    ("sweep", "options"),
    [
        ({"base": {**BASE, "category": "tabby"}}, {}),
        ({"base": {**BASE, "data": {"categories": ["Tabby"]}}}, {}),
        ({"base": BASE, "axes": {"category": ["tabby"]}}, {}),
        ({"base": BASE, "axes": {"data": [{"categories": "tabby"}]}}, None),
        ({"include": [{**BASE, "category": "tabby"}]}, {}),
        ({"base": {**BASE, "category": "voc_part/cat"}}, {"sets": {"category": "tabby"}}),
        ({"grid": "voc-part"}, {"categories": ("tabby",)}),
        ({"base": {**BASE, "category": "mittens/tabby"}}, {}),
    ],
)
def test_a_name_that_one_data_set_has_is_its_category(sweep: dict[str, Any], options: dict[str, Any] | None) -> None:
    if options is None:
        found = define(SweepRequest(SweepSpec.model_validate(sweep), imported=IMPORTED))
        assert found.axes["data"][0]["categories"] == TABBY
    else:
        assert categories(sweep, **options) == (TABBY,)


def test_a_name_of_several_imported_data_sets_is_refused_with_their_ids() -> None:
    for sweep in ({"base": {**BASE, "category": "tabby"}}, {"base": BASE, "axes": {"category": ["tabby"]}}):
        with pytest.raises(SpecError, match="mittens/tabby, paws/tabby"):
            categories(sweep, (*IMPORTED, "paws/tabby"))


def test_a_sweep_file_of_published_categories_means_the_same_after_an_import() -> None:
    for sweep in ({"base": {**BASE, "category": "cat"}}, {"base": BASE, "axes": {"category": ["cat"]}}):
        assert OWN_CAT not in categories(sweep)
        assert categories(sweep) == categories(sweep, ())


def test_other_names_mean_what_they_mean_without_imported_data_sets() -> None:
    for sweep in ({"base": {**BASE, "category": "dog"}}, {"grid": "voc-part"}):
        assert categories(sweep) == categories(sweep, ())
    cats = categories({"grid": "voc-part"}, categories=("cat",))
    assert cats == categories({"grid": "voc-part"}, (), categories=("cat",)) == (("voc_part/cat",),)
    assert categories({"grid": "voc-part"}, categories=("cat",), datasets=("mittens",)) == (OWN_CAT,)
