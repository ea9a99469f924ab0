"""Where real photographs and annotations lie, on the machines that have some."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REAL_DATA = Path(os.environ.get("ORCH_TEST_DATA") or Path(__file__).parents[2].parent / "shared/data")
needs_real_data = pytest.mark.skipif(
    not REAL_DATA.is_dir(), reason=f"no real data: ORCH_TEST_DATA is unset and {REAL_DATA} is missing"
)
