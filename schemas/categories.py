"""The 37 animal categories of the paper's three data sets, in the order of its tables, and names of imported ones."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Literal, NamedTuple, get_args

from schemas.base import did_you_mean
from schemas.errors import SpecError

DatasetName = Literal["ilsvrc_animal_part", "voc_part", "cub200"]
"""Names of the paper's three data sets."""
DATASETS: tuple[DatasetName, ...] = get_args(DatasetName)
"""The paper's data sets, in the order of its tables."""
NEGATIVE_KEY = "neg"
"""Key that stands for the negative images of an imported data set."""
MAX_NAME = 40
"""Largest number of characters of the name of an imported data set, category, landmark or part."""
_FOLDERS = ("neg", "negatives", "truth", "annotations", "images")
"""Folders of a data root that are no data sets."""
DATASET_RULE = f"at most {MAX_NAME} lower-case letters, digits and underscores, beginning with a letter"
"""Which names an imported data set may have."""


class Category(NamedTuple):
    """One animal category of one data set."""

    dataset: str
    """Data set that the category belongs to: one of `DATASETS`, or an imported one."""
    key: str
    """Name within the data set: a synset for ILSVRC, the class name otherwise."""
    name: str
    """Name as the paper's tables print it."""
    landmarks: tuple[str, ...]
    """Landmarks of location instability (Sec. 5.2.2)."""
    parts: tuple[str, ...]
    """Parts of part interpretability (Sec. 5.2.1)."""

    @property
    def id(self) -> str:
        """Unique name in specs, such as `voc_part/cat`."""
        return f"{self.dataset}/{self.key}"

    @property
    def label(self) -> str:
        """Short, unique display name, such as `voc-cat`."""
        return f"{self.label_prefix}-{self.name}"

    @property
    def label_prefix(self) -> str:
        """Short name of the data set: `ilsvrc`, `voc`, `cub`, or the whole name of an imported one."""
        return {"ilsvrc_animal_part": "ilsvrc", "voc_part": "voc", "cub200": "cub"}.get(self.dataset, self.dataset)


_ILSVRC = (
    ("n01443537", "goldfish"), ("n01503061", "bird"), ("n01639765", "frog"), ("n01662784", "turtle"),
    ("n01674464", "lizard"), ("n01882714", "koala"), ("n01982650", "lobster"), ("n02084071", "dog"),
    ("n02118333", "fox"), ("n02121808", "cat"), ("n02129165", "lion"), ("n02129604", "tiger"),
    ("n02131653", "bear"), ("n02324045", "rabbit"), ("n02342885", "hamster"), ("n02355227", "squirrel"),
    ("n02374451", "horse"), ("n02391049", "zebra"), ("n02395003", "swine"), ("n02398521", "hippopotamus"),
    ("n02402425", "cattle"), ("n02411705", "sheep"), ("n02419796", "antelope"), ("n02437136", "camel"),
    ("n02444819", "otter"), ("n02454379", "armadillo"), ("n02484322", "monkey"), ("n02503517", "elephant"),
    ("n02509815", "red_panda"), ("n02510455", "giant_panda"),
)  # fmt: skip
_VOC = ("bird", "cat", "cow", "dog", "horse", "sheep")

_HOOFED = ("cow", "horse", "sheep", "cattle", "zebra", "swine", "hippopotamus", "antelope", "camel", "elephant")
"""Names of hoofed animals, which have no part `tail`: the paper omits it for cow, horse and sheep (Sec. 5.2.1)."""

_STUB_TAILED = ("frog", "turtle", "koala", "bear", "rabbit", "hamster", "giant_panda")
"""Names of animals whose tail is missing or only a few pixels large."""


def _parts(name: str) -> tuple[str, ...]:
    """Return the paper's parts of its six VOC categories (Sec. 5.2.1), and corresponding parts of the others."""
    if name == "goldfish":
        return ("head", "torso", "tail")
    if name == "bird":
        return ("head", "torso", "legs", "tail")
    return ("head", "torso", "frontal_legs", "back_legs", *(() if name in _HOOFED + _STUB_TAILED else ("tail",)))


CATEGORIES: tuple[Category, ...] = (
    *(
        Category(
            "ilsvrc_animal_part",
            key,
            name,
            ("head",) if name == "goldfish" else ("head", "frontal_legs"),
            _parts(name),
        )
        for key, name in _ILSVRC
    ),
    *(Category("voc_part", name, name, ("head", "neck", "torso"), _parts(name)) for name in _VOC),
    Category("cub200", "bird", "bird", ("forehead", "back", "tail"), _parts("bird")),
)
"""All 37 categories, in the order of the paper's tables."""
BY_ID = {category.id: category for category in CATEGORIES}
"""Category id -> category."""


def is_imported(dataset: str) -> bool:
    """Whether a data set is a user's own, not one of the paper's."""
    return dataset not in DATASETS


def is_dataset_name(name: str) -> bool:
    """Whether an imported data set may be called so: by `DATASET_RULE`, and not by a short name of the paper's."""
    taken = name in _FOLDERS or any(one.startswith(name) for one in DATASETS)
    return not taken and len(name) <= MAX_NAME and re.fullmatch(r"[a-z][a-z0-9_]*", name) is not None


def normal_name(written: str) -> str:
    """Return the form in which the name of an imported category, landmark or part is stored: `Tabby Cat` is
    `tabby_cat`; empty if it has other characters than letters, digits, spaces, dots, dashes and underscores."""
    name = re.sub(r"\s+", "_", unicodedata.normalize("NFC", written.strip()).lower())
    return name if len(name) <= MAX_NAME and re.fullmatch(r"\w[\w.-]*", name) else ""


def is_category(id_: str) -> bool:
    """Whether an id is one of the paper's categories, or may be an imported one."""
    if id_ in BY_ID:
        return True
    dataset, _, key = id_.partition("/")
    return is_dataset_name(dataset) and bool(key) and key == normal_name(key) != NEGATIVE_KEY


def category_of(id_: str) -> Category:
    """Return the category of an id.

    The landmarks and parts of an imported category are empty here: `workers.data.data_root` reads them.
    """
    if id_ in BY_ID:
        return BY_ID[id_]
    dataset, _, key = id_.partition("/")
    return Category(dataset, key, key, (), ())


def find_categories(query: str, imported: Iterable[str] = ()) -> tuple[Category, ...]:
    """Return all categories that match an id, a label, a key, or a name in any data set.

    Args:
        query: what the user wrote.
        imported: ids of known imported categories. Others are found by their id alone, whether or not they exist.

    Raises:
        SpecError: no category matches; the message suggests the nearest name.
    """
    word = query.strip().lower()
    known = (*CATEGORIES, *(category_of(id_) for id_ in imported if id_ not in BY_ID))
    exact = tuple(c for c in known if word in (c.id, c.label))
    found = exact or tuple(c for c in known if word in (c.key, c.name))
    if not found and is_category(word):
        return (category_of(word),)
    if not found:
        names = sorted({c.name for c in known} | {c.key for c in known})
        raise SpecError(
            f"No category is called {query!r}. {did_you_mean(word, names)} Ids look like `voc_part/cat`, "
            "those of an imported data set like `mittens/cat`."
        )
    return found
