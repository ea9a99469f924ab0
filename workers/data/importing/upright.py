"""Stores a photograph upright: as it is where its pixels are upright already, otherwise turned by its EXIF tag."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import NamedTuple

from PIL import ExifTags, Image, ImageOps

from schemas.errors import DataError
from workers.data.disk_files import brief, open_regular
from workers.data.image_facts import RANGELESS, UNREADABLE

_KEPT = {"JPEG": (".jpg", ".jpeg"), "MPO": (".jpg", ".jpeg"), "PNG": (".png",)}
"""Formats whose files are stored as they are, and the suffixes that say so."""
_QUALITY = 95


class Upright(NamedTuple):
    """A photograph to be stored."""

    content: bytes
    suffix: str
    """What its name gets appended; empty if its name stays."""
    size: tuple[int, int]
    """Width and height of the upright picture, in pixels."""
    stored_size: tuple[int, int]
    """Width and height before it was turned."""
    is_turned: bool
    digest: str
    """Of the original file."""


def upright(path: Path) -> Upright:
    """Read a photograph completely, and turn it.

    A turned JPEG is compressed again; other formats than JPEG and PNG become PNG.

    Raises:
        DataError: it cannot be decoded.
    """
    try:
        with open_regular(path) as file:
            content = file.read()
        with Image.open(io.BytesIO(content)) as picture:
            picture.load()
            if picture.mode in RANGELESS:
                raise ValueError("its pixels are 32-bit numbers of unknown range")
            size, kind = picture.size, picture.format or ""
            digest = hashlib.blake2b(content, digest_size=16).hexdigest()
            is_turned = picture.getexif().get(ExifTags.Base.Orientation, 1) not in (0, 1)
            is_kept = path.suffix.lower() in _KEPT.get(kind, ())
            if is_kept and not is_turned:
                return Upright(content, "", size, size, False, digest)
            turned = ImageOps.exif_transpose(picture)
            out = io.BytesIO()
            if is_kept and kind != "PNG":
                turned.save(out, "JPEG", quality=_QUALITY)
            else:
                turned.save(out, "PNG")
    except UNREADABLE as error:
        raise DataError(f"cannot be read ({brief(str(error), 100)})") from error
    return Upright(out.getvalue(), "" if is_kept else ".png", turned.size, size, is_turned, digest)
