"""Damaged annotations are read rightly or refused by name, and what `verify` accepts, `prepare` and planning accept."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import DataError
from tests.support.fuzzing import CELLS, bounded, run
from tests.support.photograph_files import (
    write_cub,
    write_ilsvrc_category,
    write_part_masks,
    write_photograph,
    write_truth_v5,
    write_truth_v73,
    write_voc_category,
)
from workers.data import checks
from workers.data.data_root import DataRoot

SYNSET = "n02444819"
IMAGES = 3
LONGEST_MESSAGE = 300
"""Characters of a message, apart from paths."""
CORNERS = {"xmin": "20", "ymin": "10", "xmax": "79", "ymax": "69"}

Damage = Callable[[bytes], bytes]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return one root per layout, with three photographs each."""
    root = tmp_path_factory.mktemp("sound")
    write_voc_category(root / "voc", "cat", IMAGES, 1)
    write_cub(root / "cub", IMAGES)
    write_ilsvrc_category(root / "table", SYNSET, IMAGES, 2)
    for layout, write in {"v5": write_truth_v5, "v73": write_truth_v73}.items():
        write_ilsvrc_category(root / layout, SYNSET, IMAGES, 3)
        shutil.rmtree(root / layout / "ilsvrc_animal_part/annotations")
        write(root / layout / f"ilsvrc_animal_part/{SYNSET}/truth_part01.mat", [heads(n) for n in range(1, IMAGES + 1)])
    (root / "masks/VOCdevkit/VOC2010/Annotations_Part").mkdir(parents=True)
    write_photograph(root / "masks/VOCdevkit/VOC2010/JPEGImages/a.jpg", 90, 80, 4)
    write_part_masks(
        root / "masks/VOCdevkit/VOC2010/Annotations_Part/a.mat", 80, 90, [("cat", {"head": (5, 5, 65, 65)})]
    )
    return root


def heads(number: int) -> dict[str, object]:
    return {"ID": number, "filename": f"{SYNSET}_{number}", "bndbox": CORNERS, "centres": [[112.0], [56.0]]}


@pytest.fixture
def check(sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, bytes], None]:
    """Return a function that tries one content of one annotation file with every command that reads it."""
    monkeypatch.setattr(checks, "MIN_IMAGES", 1)
    monkeypatch.setattr(checks, "MIN_NEGATIVES", 0)
    trials = iter(range(1_000_000))
    root = shutil.copytree(sound, tmp_path / "roots")

    def attempt(layout: str, file: str, content: bytes) -> None:
        home = tmp_path / f"home{next(trials)}"
        monkeypatch.setenv("ORCH_HOME", str(home))
        (root / layout / file).write_bytes(content)
        try:
            _try_all(root / layout, home)
        finally:
            shutil.rmtree(home, ignore_errors=True)
            shutil.copyfile(sound / layout / file, root / layout / file)

    return attempt


def _try_all(root: Path, home: Path) -> None:
    verified = run("data", "verify", "--data-root", str(root), "--json")
    prepared = run("data", "prepare", "--data-root", str(root), "--size", "48", "--json")
    for ended in (verified, prepared):
        assert ended.code in (0, DataError.exit_code), ended.err
        assert len(ended.err.replace(str(root), "")) < LONGEST_MESSAGE + 200, ended.err
    found = json.loads(verified.out)
    for one in found["categories"]:
        assert all(len(flaw["why"].replace(str(root), "")) <= LONGEST_MESSAGE for flaw in one["flaws"])
    if verified.code == 0:
        assert prepared.code == 0, prepared.err
        for one, made in zip(found["categories"], json.loads(prepared.out), strict=True):
            assert (made["category"], made["pictures"] + len(made["skipped"])) == (one["category"], one["objects"])
        _plan(root, [one["category"] for one in found["categories"]])


def _plan(root: Path, categories: list[str]) -> None:
    """Check and digest the categories as planning does; it must accept what `verify` accepts."""
    opened = DataRoot.open(root)
    for category in categories:
        checks.check_category(category, opened)
        assert opened.category_digest(category)


def test_the_sound_roots_are_accepted(sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCH_HOME", str(tmp_path / "home"))
    for root in sound.iterdir():
        ended = run("data", "verify", "--data-root", str(root), "--json")
        objects = sum(one["objects"] for one in json.loads(ended.out)["categories"])
        assert (ended.code, objects) == (0, {"voc": 6, "masks": 1}.get(root.name, IMAGES))


# -- text ---------------------------------------------------------------------------------------------------------


@st.composite
def damages(draw: st.DrawFn) -> Damage:
    """Return one to three damages to a text file, one after another."""
    steps = draw(st.lists(st.one_of(cells(), lines(), raw(), whole()), min_size=1, max_size=3))

    def damage(content: bytes) -> bytes:
        for step in steps:
            content = step(content)
        return content

    return damage


@st.composite
def cells(draw: st.DrawFn) -> Damage:
    """Replace one cell; both separators count, so that this works for tables and for CUB's files."""
    row, column, value = draw(st.integers(0, 30)), draw(st.integers(0, 13)), draw(CELLS).encode("utf-8", "replace")

    def damage(content: bytes) -> bytes:
        separator = b"," if b"," in content else b" "
        rows = content.splitlines(keepends=True) or [b""]
        words = rows[row % len(rows)].split(separator)
        end = b"\n" if words[-1].endswith(b"\n") and column % len(words) == len(words) - 1 else b""
        words[column % len(words)] = value + end
        rows[row % len(rows)] = separator.join(words)
        return b"".join(rows)

    return damage


@st.composite
def lines(draw: st.DrawFn) -> Damage:
    """Delete, double or exchange lines."""
    kind, one, other = (
        draw(st.sampled_from(["delete", "double", "exchange"])),
        draw(st.integers(0, 30)),
        draw(st.integers(0, 30)),
    )

    def damage(content: bytes) -> bytes:
        rows = content.splitlines(keepends=True) or [b""]
        i, j = one % len(rows), other % len(rows)
        if kind == "delete":
            del rows[i]
        elif kind == "double":
            rows.insert(j, rows[i])
        else:
            rows[i], rows[j] = rows[j], rows[i]
        return b"".join(rows)

    return damage


@st.composite
def raw(draw: st.DrawFn) -> Damage:
    """Overwrite, insert or delete bytes anywhere."""
    at, gone, new = draw(st.integers(0, 1 << 20)), draw(st.integers(0, 40)), draw(st.binary(max_size=8))

    def damage(content: bytes) -> bytes:
        place = at % (len(content) + 1)
        return content[:place] + new + content[place + gone :]

    return damage


def whole() -> st.SearchStrategy[Damage]:
    """Change the encoding, the ends of lines or the separators of a file."""
    changes: list[Damage] = [
        lambda content: b"\xef\xbb\xbf" + content,
        lambda content: content.decode("latin-1").encode("utf-16"),
        lambda content: content.decode("latin-1").encode("utf-16-le"),
        lambda content: content.replace(b"e", b"\xe9"),
        lambda content: content.replace(b"\n", b"\r\n"),
        lambda content: content.replace(b"\n", b"\r"),
        lambda content: content + b"\n\n  \n",
        lambda content: content.replace(b",", b";"),
        lambda content: content.replace(b",", b"\t").replace(b" ", b"\t"),
        lambda content: content.replace(b".5", b",5"),
        lambda content: content[: len(content) // 2],
        lambda content: content.splitlines(keepends=True)[0] if content else b"",
        lambda content: b"",
    ]
    return st.sampled_from(changes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layout", "file"),
    [
        ("voc", "voc_part/truth/cat.csv"),
        ("table", f"ilsvrc_animal_part/annotations/{SYNSET}.csv"),
    ],
)
@given(damage=damages())
@bounded(70)
def test_a_damaged_table_is_read_or_refused(
    sound: Path, check: Callable[[str, str, bytes], None], layout: str, file: str, damage: Damage
) -> None:
    check(layout, file, damage((sound / layout / file).read_bytes()))


@pytest.mark.slow
@pytest.mark.parametrize(
    "file", ["images.txt", "bounding_boxes.txt", "train_test_split.txt", "parts/parts.txt", "parts/part_locs.txt"]
)
@given(damage=damages())
@bounded(25)
def test_a_damaged_text_of_cub_is_read_or_refused(
    sound: Path, check: Callable[[str, str, bytes], None], file: str, damage: Damage
) -> None:
    path = f"CUB_200_2011/{file}"
    check("cub", path, damage((sound / "cub" / path).read_bytes()))


@given(damage=damages())
@bounded(150)
def test_every_object_of_a_readable_table_is_used_or_named(sound: Path, tmp_path: Path, damage: Damage) -> None:
    root = shutil.copytree(sound / "voc/voc_part", tmp_path / "voc_part", dirs_exist_ok=True, symlinks=True).parent
    content = damage((root / "voc_part/truth/cat.csv").read_bytes())
    (root / "voc_part/truth/cat.csv").write_bytes(content)
    opened = DataRoot(root)
    try:
        used = len(opened.records("voc_part/cat")) + sum(one.objects for one in opened.left_out("voc_part/cat"))
    except DataError:
        return
    text = content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    header, *rows = csv.reader(line for line in text.split("\n") if line.strip(" ,\t"))
    image, number = (list(map(str.strip, header)).index(name) for name in ("image", "object_id"))
    assert used == len({(row[image].strip(), row[number].strip()) for row in rows if any(map(str.strip, row))})


# -- MATLAB -------------------------------------------------------------------------------------------------------

MATS = {
    "v5": f"ilsvrc_animal_part/{SYNSET}/truth_part01.mat",
    "v73": f"ilsvrc_animal_part/{SYNSET}/truth_part01.mat",
    "masks": "VOCdevkit/VOC2010/Annotations_Part/a.mat",
}
VALUES: st.SearchStrategy[object] = st.sampled_from(
    [float("nan"), float("inf"), -1.0, 0.0, 1e300, 3.5, "", "x", "nan", "12 13", np.zeros((0, 0)), np.zeros((3, 3, 3)),
     np.array([["a", "b"]], object), {"y": 1.0}, np.array([True]), 1j]
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("layout", MATS)
@given(steps=st.lists(raw(), min_size=1, max_size=3))
@bounded(25)
def test_a_damaged_mat_file_is_read_or_refused(
    sound: Path, check: Callable[[str, str, bytes], None], layout: str, steps: list[Damage]
) -> None:
    content = (sound / layout / MATS[layout]).read_bytes()
    for step in steps:
        content = step(content)
    check(layout, MATS[layout], content)


@pytest.mark.slow
@given(
    field=st.sampled_from(["ID", "filename", "xmin", "ymax", "centres"]), value=VALUES, at=st.integers(0, IMAGES - 1)
)
@bounded(50)
def test_a_mat_file_with_a_hostile_value_is_read_or_refused(
    check: Callable[[str, str, bytes], None], tmp_path: Path, field: str, value: object, at: int
) -> None:
    elements: list[Mapping[str, object]] = [heads(number) for number in range(1, IMAGES + 1)]
    hostile = dict(elements[at])
    if field in CORNERS:
        hostile["bndbox"] = {**CORNERS, field: value}
    elif field == "centres" and not isinstance(value, (float, complex)):
        return
    else:
        hostile[field] = [[value], [56.0]] if field == "centres" else value
    elements[at] = hostile
    write_truth_v5(tmp_path / "made.mat", elements)
    check("v5", MATS["v5"], (tmp_path / "made.mat").read_bytes())


@pytest.mark.parametrize(
    "name", [b"caf\xe9.jpg", b"a b.jpg", b"a\nb.jpg", b"100%.jpg", b"#1.jpg", b"A.JPG", b"e\xcc\x81.jpeg"]
)
def test_any_file_name_in_the_negatives_is_used(
    name: bytes, sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = shutil.copytree(sound / "voc", tmp_path / "voc")
    write_photograph(root / "neg/plain.jpg", 60, 60, 1)
    os.rename(root / "neg/plain.jpg", os.fsencode(root / "neg") + b"/" + name)
    monkeypatch.setenv("ORCH_HOME", str(tmp_path / "home"))
    assert run("data", "verify", "--data-root", str(root), "--json").code == 0
    made = json.loads(run("data", "prepare", "--data-root", str(root), "--size", "48", "--json").out)
    assert made[-1]["pictures"] == 1
