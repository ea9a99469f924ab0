"""A small data set of photographs, which lies on some hosts of a cluster and not on others."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

from tests.support.photograph_files import OBJECTS_PER_IMAGE, VOC_COLUMNS, write_table, write_voc_category
from tests.support.real_data import REAL_DATA

DATA_ROOT = "/tmp/photographs"
"""The data root of the hosts that have the photographs, on the host's own disk."""
OBJECTS = 90
"""Objects per category; the jobs train on some of them."""
KEYS = ("cat", "cow", "dog")
_JPEGS = Path("VOCdevkit/VOC2010/JPEGImages")


def write_photographs(root: Path) -> None:
    """Write a data root with some of Pascal VOC Part's photographs, or noise in their place where there are none."""
    real = REAL_DATA / "voc_part"
    for number, key in enumerate(KEYS):
        if (real / "truth" / f"{key}.csv").is_file():
            _copy_category(real, root / "voc_part", key)
        else:
            write_voc_category(root, key, OBJECTS // OBJECTS_PER_IMAGE, number)


def _copy_category(real: Path, folder: Path, key: str) -> None:
    """Copy the photographs of a category's first objects, and write a table of these."""
    with open(real / "truth" / f"{key}.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    objects = list(dict.fromkeys((row["image"], row["object_id"]) for row in rows))[:OBJECTS]
    (folder / _JPEGS).mkdir(parents=True, exist_ok=True)
    for image in dict.fromkeys(image for image, _ in objects):
        shutil.copyfile(real / _JPEGS / image, folder / _JPEGS / image)
    chosen = [{name: row[name] for name in VOC_COLUMNS} for row in rows if (row["image"], row["object_id"]) in objects]
    write_table(folder / "truth" / f"{key}.csv", VOC_COLUMNS, chosen)
