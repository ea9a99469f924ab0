"""Crops of photographs come in the order of the objects, whichever thread decodes first."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from PIL import Image

from workers.data.prepared import photographs
from workers.data.prepared.image_sets import PreparedImage
from workers.data.prepared.photographs import crops
from workers.data.readers.records import AnnotatedObject

SIDE = 4


def objects(*names: str) -> list[AnnotatedObject]:
    """Objects of photographs with these names; `a#1` is one of several in `a`."""
    return [AnnotatedObject(Path(name.partition("#")[0]), name.partition("#")[2], None, {}) for name in names]


def grey(level: int) -> Image.Image:
    return Image.new("RGB", (8, 8), (level, level, level))


def listed(records: list[AnnotatedObject], done: int = 0) -> list[str | tuple[int, str, int]]:
    """Number, name and grey level of each crop, or the name of an object without one."""
    found = crops("cat", records, (), SIDE, done, lambda _: None)
    return [one if isinstance(one, str) else (one.item, one.name, int(one.pixels[0, 0, 0])) for one in found]


def test_a_photograph_that_takes_long_is_yielded_before_those_decoded_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    others_are_decoded = threading.Event()

    def decode(path: Path) -> Image.Image:
        if path.name == "1":
            assert others_are_decoded.wait(30)
        else:
            others_are_decoded.set()
        return grey(int(path.name))

    monkeypatch.setattr(photographs, "DECODERS", 2)
    monkeypatch.setattr(photographs, "decode", decode)
    assert listed(objects("1", "2", "3")) == [(0, "1", 1), (1, "2", 2), (2, "3", 3)]


def test_objects_of_one_photograph_share_its_decoding_and_keep_their_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []

    def decode(path: Path) -> Image.Image | None:
        decoded.append(path.name)
        return None if path.name == "8" else grey(int(path.name))

    monkeypatch.setattr(photographs, "DECODERS", 1)
    monkeypatch.setattr(photographs, "decode", decode)
    records = objects("7#a", "7#b", "8#a", "8#b", "9#a")
    assert listed(records, done=1) == [(1, "7#b", 7), "8#a", "8#b", (4, "9#a", 9)]
    assert decoded == ["7", "8", "9"]


def test_only_a_few_photographs_are_decoded_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []

    def decode(path: Path) -> Image.Image:
        decoded.append(path.name)
        return grey(0)

    monkeypatch.setattr(photographs, "DECODERS", 2)
    monkeypatch.setattr(photographs, "decode", decode)
    found = crops("cat", objects(*map(str, range(100))), (), SIDE, 0, lambda _: None)
    first = next(found)
    assert isinstance(first, PreparedImage)
    found.close()
    assert 1 <= len(decoded) <= 5
