"""Tables and text files of annotations: read as people's programs write them, or refused with file and line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from schemas.errors import DataError
from tests.support.photograph_files import write_cub
from workers.data.checks import check_category
from workers.data.data_root import DataRoot
from workers.data.readers.records import AnnotatedObject, LeftOut
from workers.data.verify import verify

CAT = "voc_part/cat"
TABLE = "voc_part/truth/cat.csv"
Change = Callable[[bytes], bytes]


def change(root: Path, how: Change, file: str = TABLE) -> Path:
    (root / file).write_bytes(how((root / file).read_bytes()))
    return root


def cell(column: str, value: str, row: int = 1) -> Change:
    """Replace one cell; row 1 is line 2."""

    def damage(content: bytes) -> bytes:
        lines = content.decode().splitlines()
        cells = lines[row].split(",")
        cells[lines[0].split(",").index(column)] = value
        lines[row] = ",".join(cells)
        return "\n".join(lines).encode()

    return damage


def records(root: Path) -> list[AnnotatedObject]:
    return [record._replace(where={}) for record in DataRoot(root).records(CAT)]


READ: dict[str, Change] = {
    "byte order mark": lambda content: b"\xef\xbb\xbf" + content,
    "CRLF": lambda content: content.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"),
    "CR": lambda content: content.replace(b"\r\n", b"\n").replace(b"\n", b"\r"),
    "blank lines": lambda content: content + b"\n\n  \n,,,,,,,,,,,,,\n",
    "another column": lambda content: b"\n".join(b"x," + line for line in content.splitlines()),
    "other order": lambda content: b"\n".join(b",".join(line.split(b",")[::-1]) for line in content.splitlines()),
    "quotes": lambda content: b"\n".join(b'"' + line.replace(b",", b'","') + b'"' for line in content.splitlines()),
    "whole numbers with a point": lambda content: cell("xmin", "1.0")(content),
}


@pytest.mark.parametrize("kind", READ)
def test_a_table_is_read_as_other_programs_write_it(kind: str, data_root: Path) -> None:
    expected = records(data_root)
    assert records(change(data_root, READ[kind])) == expected


REFUSED: dict[str, tuple[Change, str]] = {
    "swapped x": (cell("xmin", "90"), "line 2, cannot be read: the box .* is empty, or its corners are swapped"),
    "swapped y": (cell("ymin", "90"), "line 2, .*swapped"),
    "NaN": (cell("xmax", "nan"), "line 2, .*`xmax` is 'nan', which is not a number"),
    "infinity": (cell("xmax", "inf"), "line 2, .*`xmax` is 'inf'"),
    "overflow": (cell("xmax", "1e400"), "line 2, .*`xmax` is '1e400'"),
    "empty": (cell("ymax", ""), "line 2, .*`ymax` is ''"),
    "fraction": (cell("ymax", "60.5"), "line 2, .*60.5, which is not a whole number"),
    "landmark NaN": (cell("part_y", "nan"), "line 2, .*`part_y` is 'nan'"),
    "decimal comma": (cell("part_y", "15,5"), "line 2, .*15 cells, and the header has 14"),
    "quoted decimal comma": (cell("part_y", '"15,5"'), "line 2, .*'15,5', which is not a number"),
    "no photograph": (cell("image", ""), "line 2, .*`image` is empty"),
    "half a size": (cell("width", "0"), "line 2, .*a photograph of 0 x 60 pixels"),
    "semicolons": (lambda content: content.replace(b",", b";"), "lacks the columns image.* separated by commas"),
    "tabs": (lambda content: content.replace(b",", b"\t"), "lacks the columns image.* separated by commas"),
    "missing column": (lambda content: content.replace(b"xmin", b"left"), "line 1, .*lacks the columns xmin"),
    "double column": (lambda content: content.replace(b"part_h", b"xmin"), "line 1, .*column xmin is there twice"),
    "open quote": (cell("part_h", '"3'), "cannot be read: (unexpected end of data|.*quote is probably not closed)"),
    "nothing": (lambda _: b"", "cat.csv cannot be read: it is empty"),
    "Latin-1": (
        lambda content: content.replace(b"2008_010000", b"caf\xe9"),
        "line 2, byte 100, .*not UTF-8",
    ),
    "UTF-16": (lambda content: content.decode().encode("utf-16"), "it is UTF-16, not UTF-8"),
    "UTF-32": (lambda content: content.decode().encode("utf-32"), "it is UTF-32, not UTF-8"),
    "UTF-16 without mark": (lambda content: content.decode().encode("utf-16-le"), "line 1, .*a zero byte"),
    "binary": (lambda _: b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40, "line 1, byte 0, cannot be read: not UTF-8"),
    "long": (cell("xmin", "9" * 100_000), r"line 2, .*`xmin` is '9+\.\.\.'"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_table_that_cannot_be_used_is_refused_with_file_and_line(kind: str, data_root: Path) -> None:
    damage, said = REFUSED[kind]
    change(data_root, damage)
    with pytest.raises(DataError, match=said) as refused:
        DataRoot(data_root).records(CAT)
    assert str(refused.value).startswith(f"{data_root / TABLE}")
    assert len(str(refused.value)) - len(str(data_root)) < 300
    assert "\n" not in str(refused.value)
    (cat,) = [one for one in verify(DataRoot(data_root), (CAT,)) if one.category == CAT]
    assert [flaw.path for flaw in cat.flaws] == [data_root / TABLE]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cell("part_x", "900"), r"landmark head .*lies outside its image.*cat\.csv, line 2\b"),
        (cell("part_y", "-20"), r"landmark head .*lies outside its image.*cat\.csv, line 2\b"),
        (lambda content: content.replace(b",1,60,1,60,", b",-9,60,1,60,").replace(b",1,1,60,60,", b",-9,1,60,60,"),
         r"box \(-10, 0\).*lies outside its image.*cat\.csv, line 2\b"),
    ],
)  # fmt: skip
def test_annotations_outside_an_image_are_named_with_their_line(damage: Change, said: str, data_root: Path) -> None:
    change(data_root, damage)
    with pytest.raises(DataError, match=said):
        check_category(CAT, DataRoot(data_root))


def test_small_objects_are_counted_and_never_vanish(data_root: Path) -> None:
    lines = (data_root / TABLE).read_text().splitlines()
    small = [line.replace(",60,60,", ",20,20,", 1) for line in lines]
    (data_root / TABLE).write_text("\n".join(small))
    root = DataRoot(data_root)
    ((count, why),) = root.left_out(CAT)
    assert (count + len(root.records(CAT)), why) == (60, "boxes below 2500 pixels")
    (cat,) = [one for one in verify(root, (CAT,)) if one.category == CAT]
    assert f"left out: {count} boxes below 2500 pixels" in cat.note


@pytest.mark.parametrize("file", ["images.txt", "bounding_boxes.txt", "parts/parts.txt", "parts/part_locs.txt"])
@pytest.mark.parametrize("kind", ["byte order mark", "CRLF", "CR", "tabs"])
def test_texts_of_cub_are_read_as_other_programs_write_them(file: str, kind: str, tmp_path: Path) -> None:
    folder = write_cub(tmp_path, 3)
    expected = DataRoot(tmp_path).records("cub200/bird")
    how = READ.get(kind, lambda content: content.replace(b" ", b"\t") + b"\n\n")
    change(folder, how, file)
    assert DataRoot(tmp_path).records("cub200/bird") == expected


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("bounding_boxes.txt", "2 20.0 10.0 60.0", "2 20.0 10.0 -60.0", "line 2, .*swapped"),
        ("bounding_boxes.txt", "2 20.0 10.0 60.0", "2 20.0 10.0 0", "line 2, .*is empty"),
        ("bounding_boxes.txt", "2 20.0", "2 20,0", "line 2, .*should be 5 numbers"),
        ("bounding_boxes.txt", "2 20.0", "2 \u00b2", "line 2, .*should be 5 numbers"),
        ("images.txt", "_0002.jpg", "_0001.jpg", "line 2, .*is listed twice, first in line 1"),
        ("images.txt", "2 001.", "\x00 001.", "line 2, .*a zero byte"),
    ],
)
def test_values_of_cub_that_cannot_be_are_refused(file: str, old: str, new: str, said: str, tmp_path: Path) -> None:
    folder = write_cub(tmp_path, 3)
    change(folder, lambda content: content.replace(old.encode(), new.encode()), file)
    with pytest.raises(DataError, match=rf"{file}, {said}"):
        DataRoot(tmp_path).records("cub200/bird")


def test_boxes_without_an_image_are_counted(tmp_path: Path) -> None:
    change(write_cub(tmp_path, 3), lambda content: b"\n".join(content.splitlines()[:2]), "images.txt")
    root = DataRoot(tmp_path)
    assert len(root.records("cub200/bird")) == 2
    assert root.left_out("cub200/bird") == [LeftOut(1, "boxes of images that images.txt does not list")]


def test_names_of_cub_may_have_spaces(tmp_path: Path) -> None:
    folder = write_cub(tmp_path, 3)
    change(folder, lambda content: content.replace(b"_0002.jpg", b"  \xc2\xa0two.jpg"), "images.txt")
    assert DataRoot(tmp_path).records("cub200/bird")[1].image.name == "Black_Footed_Albatross  \u00a0two.jpg"
