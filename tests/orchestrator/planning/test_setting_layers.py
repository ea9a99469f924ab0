"""Merging layers of settings."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.planning.setting_layers import differences, flatten, lookup, nest, overlay, without

NAMES = st.sampled_from(["a", "b", "c", "source"])
TREES = st.recursive(
    st.dictionaries(NAMES, st.integers(), max_size=3),
    lambda inner: st.dictionaries(NAMES, inner | st.integers(), max_size=3),
    max_leaves=6,
)


@given(TREES)
def test_overlaying_nothing_or_the_same_changes_nothing(tree: dict[str, object]) -> None:
    assert overlay(tree, {}) == tree
    assert overlay(tree, tree) == tree
    assert differences(tree, tree) == []


@given(TREES)
def test_flat_names_and_nesting_are_inverse(tree: dict[str, object]) -> None:
    assert nest(dict(flatten(tree))) == tree


@given(TREES, TREES)
def test_everything_above_shows(below: dict[str, object], above: dict[str, object]) -> None:
    merged = overlay(below, above)
    assert all(lookup(merged, name) == value for name, value in flatten(above) if not isinstance(value, dict))


def test_dotted_names_and_aliases_mean_their_section() -> None:
    assert nest({"train.epochs": 5, "train": {"seed": 1}, "backbone": "vgg16"}) == {
        "train": {"epochs": 5, "seed": 1},
        "model": {"backbone": "vgg16"},
    }


def test_a_section_of_another_source_is_replaced_and_one_of_the_same_is_merged() -> None:
    below = {"weights": {"source": "pretrain", "epochs": 4}}
    assert overlay(below, {"weights": {"source": "random"}}) == {"weights": {"source": "random"}}
    assert overlay(below, {"weights": {"epochs": 1}}) == {"weights": {"source": "pretrain", "epochs": 1}}


def test_a_value_can_be_taken_out_without_its_neighbours() -> None:
    tree = {"model": {"mask": False, "width": 1}, "seed": 0}
    assert without(tree, "model.mask") == {"model": {"width": 1}, "seed": 0}
    assert without(tree, "filter_loss") == tree


def test_differences_name_the_field_and_both_values() -> None:
    assert differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "d": 4}) == [
        ("a.b", 1, 3),
        ("c", 2, None),
        ("d", None, 4),
    ]


def test_an_alias_stands_for_its_field_at_the_top_and_is_a_plain_name_below() -> None:
    assert nest({"backbone": "vgg16"}) == {"model": {"backbone": "vgg16"}}
    assert nest({"model": {"backbone": "vgg16", "variant": "ordinary"}}) == {
        "model": {"backbone": "vgg16", "variant": "ordinary"}
    }
