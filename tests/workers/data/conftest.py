"""A small data root; each test gets a copy that it may damage."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.photograph_files import write_cub, write_photograph, write_voc_category


@pytest.fixture(scope="session")
def pristine_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a root of cats (60 objects), cows (56), dogs (4), birds of CUB (52), and fifty negatives."""
    root = tmp_path_factory.mktemp("pristine")
    for seed, (key, images) in enumerate({"cat": 30, "cow": 28, "dog": 2}.items(), start=1):
        write_voc_category(root, key, images, seed)
    write_cub(root, 52)
    for number in range(50):
        write_photograph(root / f"neg/{number:02d}.jpg", 90, 70, 90_000 + number)
    return root


@pytest.fixture
def data_root(pristine_root: Path, tmp_path: Path) -> Path:
    """Return a copy of the root."""
    return shutil.copytree(pristine_root, tmp_path / "data")
