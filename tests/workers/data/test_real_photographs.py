"""The readers on real photographs, where some are at hand (ORCH_TEST_DATA, or ../shared/data)."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from schemas.categories import BY_ID
from schemas.job import DataSpec, EvaluationSpec
from workers.data.checks import check_data
from workers.data.crops import crop, decode
from workers.data.dataset import load_job_data
from workers.data.sources import present_categories, records_of

ROOT = Path(os.environ.get("ORCH_TEST_DATA") or Path(__file__).parents[3].parent / "shared/data")
pytestmark = pytest.mark.skipif(
    not ROOT.is_dir(), reason=f"no photographs: ORCH_TEST_DATA is unset and {ROOT} is missing"
)


def usable() -> list[str]:
    return [name for name in present_categories(ROOT) if len(records_of(name, ROOT)) >= 50] if ROOT.is_dir() else []


@pytest.mark.parametrize("category", usable())
def test_real_data_pass_the_checks(category: str) -> None:
    check_data(DataSpec(categories=(category,), images="photographs"), ROOT)


@pytest.mark.parametrize("category", usable())
def test_real_landmarks_lie_inside_their_crops(category: str) -> None:
    names = BY_ID[category].landmarks
    shown = []
    for record in records_of(category, ROOT)[::40]:
        picture = decode(record.image)
        assert picture is not None
        landmarks_K2 = crop(picture, record, 64, names)[1]
        shown.append(~np.isnan(landmarks_K2[:, 0]))
        assert set(record.landmarks) == {name for name, seen in zip(names, shown[-1], strict=True) if seen}
    assert np.mean(shown) > 0.5


def test_a_real_job_loads(tmp_path: Path) -> None:
    smallest = min(usable(), key=lambda name: len(records_of(name, ROOT)))
    data = DataSpec(categories=(smallest,), images="photographs", negatives="folder")
    if not (ROOT / "neg").is_dir():
        pytest.skip("no folder of negatives among the photographs")
    loaded = load_job_data(data, EvaluationSpec(split="all"), input_size=48, seed=0, cache_dir=tmp_path, data_root=ROOT)
    assert len(loaded.measured) == len(records_of(smallest, ROOT))
    assert loaded.skipped == ()
    assert 60 < loaded.mean_SS3.mean() < 190
