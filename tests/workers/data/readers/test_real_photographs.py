"""The readers on real photographs, where available (ORCH_TEST_DATA, or ../shared/data)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from schemas.categories import BY_ID
from schemas.job import DataSpec, EvaluationSpec
from tests.support.real_data import REAL_DATA, needs_real_data
from workers.data.checks import check_data
from workers.data.data_root import DataRoot
from workers.data.dataset import load_job_data
from workers.data.prepared.crops import crop, decode

pytestmark = needs_real_data


def usable() -> list[str]:
    root = DataRoot(REAL_DATA)
    return [name for name in root.present_categories() if len(root.records(name)) >= 50] if REAL_DATA.is_dir() else []


@pytest.mark.parametrize("category", usable())
def test_real_data_pass_the_checks(category: str) -> None:
    check_data(DataSpec(categories=(category,), images="photographs"), DataRoot.open(REAL_DATA))


@pytest.mark.parametrize("category", usable())
def test_real_landmarks_lie_inside_their_crops(category: str) -> None:
    names = BY_ID[category].landmarks
    shown = []
    for record in DataRoot(REAL_DATA).records(category)[::40]:
        picture = decode(record.image)
        assert picture is not None
        landmarks_K2 = crop(picture, record, 64, names)[1]
        shown.append(~np.isnan(landmarks_K2[:, 0]))
        assert set(record.landmarks) == {name for name, seen in zip(names, shown[-1], strict=True) if seen}
    assert np.mean(shown) > 0.5


def test_a_real_job_loads(tmp_path: Path) -> None:
    smallest = min(usable(), key=lambda name: len(DataRoot(REAL_DATA).records(name)))
    data = DataSpec(categories=(smallest,), images="photographs", negatives="folder")
    if not (REAL_DATA / "neg").is_dir():
        pytest.skip("no folder of negatives among the photographs")
    loaded = load_job_data(
        data, EvaluationSpec(split="all"), input_size=48, seed=0, cache_dir=tmp_path, data_root=REAL_DATA
    )
    assert len(loaded.measured) == len(DataRoot(REAL_DATA).records(smallest))
    assert loaded.skipped == ()
    assert 60 < loaded.mean_SS3.mean() < 190
