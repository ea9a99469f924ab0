"""What the fuzz tests share: a deterministic profile, hostile values, and one command run in this process."""

from __future__ import annotations

import contextlib
import io
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from orchestrator.cli.main import main

_TIMES = int(os.environ.get("ORCH_FUZZ_TIMES", "1"))


def bounded(examples: int) -> Callable[[Any], Any]:
    """Return the profile of a fuzz test: the same examples on every machine; ORCH_FUZZ_TIMES multiplies them."""
    return settings(
        max_examples=_TIMES * examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
    )


CELLS = st.sampled_from(
    [
        "", " ", "0", "-0", "-1", "1", "2", "7", "1.0", "1.5", "1,5", "nan", "-inf", "1e400", "1e2", "0x10", "1_0",
        "99999999999999999999", "\uff11", "\u00b2", "true", '"', '"a', 'a"b', "\u00e9", "e\u0301", "\ufeff", "\u2028",
        "\0", "\t", ";", "#", "%s", "../../x.jpg", "/etc/passwd", "a b.jpg", "x" * 300, "y" * 200_000,
    ]
) | st.text(max_size=6)  # fmt: skip
"""Hostile content of one cell of a text file."""


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str
    seconds: float
    """Of a core, so that a busy machine makes no test fail."""


def run(*words: str) -> Ended:
    """Run one command of orch in this process."""
    out, err, start = io.StringIO(), io.StringIO(), time.process_time()
    code: object = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(list(words))
        except SystemExit as ended:
            code = ended.code or 0
    assert isinstance(code, int)
    return Ended(code, out.getvalue(), err.getvalue(), time.process_time() - start)
