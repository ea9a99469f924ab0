"""Networks that are trained as one get the gradients that each would get alone."""

from __future__ import annotations

import pytest
import torch

from benchmarks import packs
from benchmarks.packs import Pack, measure
from schemas.job import ModelSpec

CPU = torch.device("cpu")
MODEL = ModelSpec(backbone="alexnet", variant="interpretable", width=0.05, input_size=64, fc_width=16, dropout=0.0)


def test_each_network_of_a_pack_has_its_own_gradients() -> None:
    pack = Pack(MODEL, 3, 4, CPU)
    together, alone = pack.packed(), pack.alone()
    for name, gradients in together.items():
        assert len(gradients) == 3
        for number in range(3):
            torch.testing.assert_close(gradients[number], alone[number][name], rtol=1e-3, atol=1e-6)
        assert not torch.equal(gradients[0], gradients[1])


def test_a_pack_whose_gradients_differ_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    pack = Pack(MODEL, 2, 4, CPU)
    monkeypatch.setattr(packs, "TOLERANCE", 0.0)
    monkeypatch.setattr(pack, "largest_difference", lambda: 1e-9)
    with pytest.raises(SystemExit, match=r"the gradients differ by 1\.0e-09"):
        measure(pack, 1, CPU)
