"""Hidden files are passed over, only regular files are opened, and every name can be used or printed."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from schemas.errors import DataError
from tests.support.photograph_files import write_photograph
from workers.data.checks import check_category
from workers.data.data_root import DataRoot
from workers.data.disk_files import brief, is_hidden, open_regular, printable
from workers.data.readers.sources import NEGATIVES
from workers.data.verify import verify

APPLE_DOUBLE = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        "


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        here = Path.cwd()
        os.chdir(path.parent)  # the path of a socket has at most 107 bytes
        try:
            made.bind(path.name)
        finally:
            os.chdir(here)


ODD: dict[str, tuple[Callable[[Path], object], str]] = {
    "pipe": (os.mkfifo, "a pipe, not a file"),
    "socket": (bind, "a socket, not a file"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "a device, not a file"),
    "folder": (Path.mkdir, "a folder, not a file"),
    "dangling": (lambda path: path.symlink_to("nowhere"), "a link to a file that is missing"),
    "loop": (lambda path: path.symlink_to(path.name), "Too many levels of symbolic links"),
    "empty": (Path.touch, "empty (0 bytes)"),
}


@pytest.mark.parametrize("kind", ODD)
def test_what_is_no_regular_file_is_named_and_never_waited_for(kind: str, data_root: Path) -> None:
    make, said = ODD[kind]
    make(data_root / f"neg/{kind}.png")
    root = DataRoot(data_root)
    check_category(NEGATIVES, root)  # one unreadable image of 51 is tolerated
    assert root.usable_count(NEGATIVES) == 50
    (flaw,) = verify(root, ("none",))[0].flaws
    assert (flaw.path.name, said in flaw.why) == (f"{kind}.png", True)


def test_hidden_files_are_passed_over_everywhere(data_root: Path) -> None:
    digests = [DataRoot(data_root).category_digest(name) for name in ("voc_part/cat", "cub200/bird", NEGATIVES)]
    jpegs = data_root / "voc_part/VOCdevkit/VOC2010/JPEGImages"
    masks = data_root / "voc_part/VOCdevkit/VOC2010/Annotations_Part"
    masks.mkdir()
    for path in (
        *(data_root / f"neg/._{number:02d}.jpg" for number in range(50)),
        data_root / "neg/.DS_Store",
        data_root / "neg/Thumbs.db",
        data_root / "neg/desktop.ini",
        jpegs / "._2008_010000.jpg",
        masks / "._2008_010000.mat",
        data_root / "voc_part/truth/._cat.csv",
    ):
        path.write_bytes(APPLE_DOUBLE)
    root = DataRoot(data_root)
    assert digests == [root.category_digest(name) for name in ("voc_part/cat", "cub200/bird", NEGATIVES)]
    assert not [one for one in verify(root, ()) if one.flaws]
    folder = root.negative_folder()
    assert folder is not None
    assert folder.unused == []


def test_hidden_files_of_masks_and_of_matlab_annotations_are_passed_over(tmp_path: Path) -> None:
    synset = tmp_path / "n02444819"
    synset.mkdir()
    (synset / "._truth_part01.mat").write_bytes(APPLE_DOUBLE)
    write_photograph(tmp_path / "images/n02444819/a.JPEG", 60, 60, 1)
    assert DataRoot(tmp_path).present_categories() == []


def test_what_is_beside_the_negatives_is_counted_and_named(data_root: Path) -> None:
    (data_root / "neg/more").mkdir()
    (data_root / "neg/a.webp").write_bytes(b"RIFF")
    (negatives,) = [one for one in verify(DataRoot(data_root), ("none",)) if one.category == NEGATIVES]
    assert negatives.note == "not images, so not used: a.webp, more"


def test_a_name_that_is_not_utf8_is_used_and_ordinary_keys_stay(data_root: Path) -> None:
    before = DataRoot(data_root).category_digest("voc_part/cat")
    os.rename(data_root / "neg/00.jpg", os.fsencode(data_root) + b"/neg/caf\xe9.jpg")
    root = DataRoot(data_root)
    assert root.usable_count(NEGATIVES) == 50
    assert root.category_digest("voc_part/cat") == before
    assert root.category_digest(NEGATIVES) != DataRoot(data_root.parent / "data").category_digest("voc_part/cat")
    assert r"caf\xe9.jpg" in {record.name for record in root.records(NEGATIVES)}


def test_another_spelling_of_a_missing_photograph_is_named(data_root: Path) -> None:
    jpegs = data_root / "voc_part/VOCdevkit/VOC2010/JPEGImages"
    (jpegs / "2008_010000.jpg").rename(jpegs / "2008_010000.JPG")
    (cat,) = [one for one in verify(DataRoot(data_root), ("voc_part/cat",)) if one.category == "voc_part/cat"]
    assert cat.flaws[0].why == "missing; 2008_010000.JPG is there"


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(data_root: Path) -> None:
    content = bytearray((data_root / "neg/00.jpg").read_bytes())
    Image.new("1", (8, 8)).save(data_root / "neg/bomb.png")
    content = bytearray((data_root / "neg/bomb.png").read_bytes())
    content[16:24] = (60_000).to_bytes(4, "big") * 2
    import zlib

    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    (data_root / "neg/bomb.png").write_bytes(content)
    root = DataRoot(data_root)
    assert root.usable_count(NEGATIVES) == 50
    (flaw,) = verify(root, ("none",))[0].flaws
    assert "exceeds limit" in flaw.why


def test_a_folder_that_cannot_be_listed_is_named(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = os.listdir

    def refuse(path: str | Path) -> list[str]:
        if str(path).endswith("neg"):
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(DataError, match=r"neg cannot be listed \(Permission denied\)"):
        DataRoot(data_root).negative_images()


@pytest.mark.parametrize(
    ("name", "hidden"), [("._a.jpg", True), ("Thumbs.db", True), ("a._b.jpg", False), ("a", False)]
)
def test_hidden_names(name: str, hidden: bool) -> None:
    assert is_hidden(name) is hidden


def test_text_for_messages_is_one_short_line() -> None:
    assert printable(os.fsdecode(b"caf\xe9.jpg")) == r"caf\xe9.jpg"
    assert brief("a\nb\tc") == "a b c"
    assert len(brief("x" * 10_000)) == 60


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="a pipe, not a file"):
        open_regular(tmp_path / "pipe")
