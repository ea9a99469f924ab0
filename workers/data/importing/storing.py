"""Writes an imported data set: everything is checked and written aside, and becomes visible by one rename."""

from __future__ import annotations

import csv
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from schemas.categories import DATASET_RULE, NEGATIVE_KEY, is_dataset_name
from schemas.errors import DataError, SpecError, StoreError
from schemas.order import ReportProgress
from workers.data.checks import misfit
from workers.data.disk_files import brief, printable
from workers.data.image_facts import ImageFacts
from workers.data.importing.coco import from_coco
from workers.data.importing.masks import PartMasks, from_masks
from workers.data.importing.objects import Annotated, NewObject, import_error, list_images, some_names
from workers.data.importing.tables import from_csv, from_folders
from workers.data.importing.upright import Upright, upright
from workers.data.readers.imported import (
    DESCRIPTION,
    IMAGES,
    MASKS,
    OBJECTS,
    ImportedCategory,
    ImportedDescription,
    mask_name,
)
from workers.data.readers.object_table import CATEGORY, CORNERS, IMAGE
from workers.data.readers.records import BOX, AnnotatedObject

_SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})


@dataclass(frozen=True)
class Sources:
    """What a user names on the command line."""

    folder: Path
    """Photographs, also in folders below it."""
    csv: Path | None = None
    coco: Path | None = None
    masks: Path | None = None
    category: str = ""
    """Of photographs whose category neither annotation nor folder names; empty for the name of the data set."""


@dataclass(frozen=True)
class Imported:
    """An imported data set."""

    name: str
    folder: Path
    objects: Mapping[str, int]
    """By key of the category, the negatives as `neg`."""
    categories: Mapping[str, ImportedCategory]
    photographs: int
    turned: int
    """Number of photographs that were turned by their EXIF tag."""
    notes: tuple[str, ...]
    """What was not used."""


def import_data(
    sources: Sources,
    name: str,
    data_root: Path,
    *,
    replace_old: bool = False,
    advance: ReportProgress = lambda *_: None,
) -> Imported:
    """Import photographs into a data root as a data set of its own.

    Args:
        sources: the photographs and their annotations.
        name: of the data set, and of its folder.
        data_root: receives the data set; it is made where it does not exist.
        replace_old: replace an imported data set of this name.
        advance: receives the number of photographs done and in all.

    Raises:
        SpecError: the name cannot be used, or a data set has it.
        DataError: a photograph or an annotation cannot be used. Nothing is imported then.
        StoreError: the data root cannot be written.
    """
    target = data_root / name
    _check_place(sources, name, data_root, target, replace_old)
    images, others = _list(sources)
    masks = PartMasks(sources.masks, images) if sources.masks else None
    annotated = _annotated(sources, images, masks, sources.category or name)
    if not any(one.category != NEGATIVE_KEY for one in annotated.objects):
        raise import_error(["no photograph of a category was found, only negatives"])
    notes = [
        *annotated.notes,
        *([f"not imported, because they are no photographs: {some_names(others)}"] if others else []),
    ]
    with _aside(data_root, name) as partial:
        done = _Writing(sources.folder, partial, annotated, masks, advance).write(name)
        _put_in_place(partial, target)
    return replace(done, folder=target, notes=(*notes, *done.notes))


def _check_place(sources: Sources, name: str, data_root: Path, target: Path, replace_old: bool) -> None:
    if not is_dataset_name(name):
        raise SpecError(
            f"`--name` is {name!r}, which cannot be the name of a data set. Use {DATASET_RULE}, and no name of the "
            "paper's data sets."
        )
    for path, option in ((sources.csv, "--csv"), (sources.coco, "--coco")):
        if path is not None and not path.is_file():
            raise DataError(f"`{option}` is {printable(path)}, which is not a file. Check the path.")
    for folder, option in ((sources.folder, "FOLDER"), (sources.masks, "--masks")):
        if folder is not None and not folder.is_dir():
            raise DataError(f"`{option}` is {printable(folder)}, which is not a folder. Check the path.")
    if data_root == sources.folder or sources.folder in data_root.parents:
        raise SpecError(
            f"The data root {data_root} lies in the folder that is to be imported. Give another `--data-root`."
        )
    if target.exists() and not (replace_old and (target / DESCRIPTION).is_file()):
        what = "Choose another `--name`"
        hint = f"{what}, or repeat the command with `--replace`" if (target / DESCRIPTION).is_file() else what
        raise SpecError(f"{target} exists already. {hint}.")


def _list(sources: Sources) -> tuple[list[str], list[str]]:
    """Return the photographs, and the files that are neither photographs nor annotations."""
    images, others = list_images(sources.folder)
    if sources.masks is not None and sources.folder in sources.masks.parents:
        inside = f"{sources.masks.relative_to(sources.folder).as_posix()}/"
        images = [image for image in images if not image.startswith(inside)]
    annotations = [path for path in (sources.csv, sources.coco) if path is not None]
    others = [other for other in others if sources.folder / other not in annotations]
    if not images:
        raise import_error([f"{printable(sources.folder)} has no photographs (.jpg, .png, .webp, .bmp, .tif)"])
    if odd := [image for image in images if not _is_plain(image)]:
        raise import_error(
            [f"the file name {brief(printable(image))!r} cannot be stored in a table" for image in odd],
            "Rename it: UTF-8, without line breaks, backslashes, or spaces at its ends.",
        )
    return images, others


def _is_plain(image: str) -> bool:
    return image == printable(image) == image.strip() and image.isprintable() and "\\" not in image


def _annotated(sources: Sources, images: Sequence[str], masks: PartMasks | None, category: str) -> Annotated:
    if sources.csv is not None and sources.coco is not None:
        raise SpecError("`--csv` and `--coco` are both given. Keep the one that has the boxes and landmarks.")
    if sources.csv is not None:
        return from_csv(sources.csv, images, category)
    if sources.coco is not None:
        return from_coco(sources.coco, images)
    top = {image.partition("/")[0] for image in images if "/" in image}
    if top and top <= _SPLITS:
        raise import_error(
            [f"the folders {', '.join(sorted(top))} are splits, not categories"],
            "Import one of them, or name the categories in a table (`--csv`): orch splits the photographs itself.",
        )
    return from_masks(masks, images, category) if masks is not None else from_folders(images, category)


class _Writing:
    """The files of one data set while they are written."""

    def __init__(
        self, folder: Path, partial: Path, annotated: Annotated, masks: PartMasks | None, advance: ReportProgress
    ) -> None:
        self._folder, self._partial, self._annotated, self._masks = folder, partial, annotated, masks
        self._advance = advance
        self._problems: list[str] = []
        self._stored: dict[str, str] = {}
        self._digests: dict[str, list[str]] = {}
        self._masked: set[str] = set()
        self._turned = 0

    def write(self, name: str) -> Imported:
        """Write all files.

        Raises:
            DataError: a photograph, its annotation or its mask cannot be used.
        """
        of_image: dict[str, list[NewObject]] = {}
        for one in self._annotated.objects:
            same = [other for other in of_image.setdefault(one.image, []) if replace(other, where=one.where) == one]
            if same:
                self._problems.append(f"{one.where}: the same object of {brief(one.image)} is there twice")
            of_image[one.image].append(one)
        for done, (image, objects) in enumerate(of_image.items(), start=1):
            self._write_image(image, objects)
            self._advance("photographs", done, len(of_image))
        if self._problems:
            raise import_error(self._problems)
        categories = self._categories()
        self._write_table()
        described = ImportedDescription(name=name, categories=categories)
        (self._partial / DESCRIPTION).write_text(described.model_dump_json(indent=2) + "\n", encoding="utf-8")
        counts = Counter(one.category for one in self._annotated.objects)
        return Imported(name, self._partial, counts, categories, len(of_image), self._turned, tuple(self._notes()))

    def _write_image(self, image: str, objects: Sequence[NewObject]) -> None:
        try:
            found = upright(self._folder / image)
            bits_HW = self._masks.bits(image, found.size) if self._masks and image in self._masks else None
        except DataError as error:
            self._problems.append(f"{brief(printable(image))}: {error}")
            return
        self._problems += self._misfits(image, objects, found)
        self._turned += found.is_turned
        self._digests.setdefault(found.digest, []).append(image)
        stored = f"{image}{found.suffix}"
        if found.suffix and (self._folder / stored).exists():
            self._problems.append(f"{image} would be stored as {stored}, which is another photograph: rename one")
            return
        self._stored[image] = stored
        _write(self._partial / IMAGES / stored, found.content)
        if bits_HW is not None:
            self._masked.add(image)
            path = self._partial / MASKS / mask_name(stored)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(bits_HW).save(path, "PNG")

    def _misfits(self, image: str, objects: Sequence[NewObject], found: Upright) -> Iterator[str]:
        annotated = self._annotated.sizes.get(image, found.size)
        if annotated != found.size:
            turned = found.stored_size != found.size and annotated == found.stored_size
            yield (
                f"{image} is annotated as {annotated[0]} x {annotated[1]} pixels, and its upright picture has "
                f"{found.size[0]} x {found.size[1]}"
                + ("; it was annotated without its EXIF rotation: annotate the upright picture" if turned else "")
            )
            return
        for one in objects:
            where = dict.fromkeys((BOX, *one.landmarks), one.where)
            record = AnnotatedObject(self._folder / image, "", one.box, one.landmarks, where=where)
            if (problem := misfit(record, ImageFacts("", *found.size))) is not None:
                yield problem

    def _categories(self) -> dict[str, ImportedCategory]:
        found: dict[str, ImportedCategory] = {}
        for key in dict.fromkeys(one.category for one in self._annotated.objects if one.category != NEGATIVE_KEY):
            own = [one for one in self._annotated.objects if one.category == key]
            seen = {name for one in own for name in one.landmarks}
            masked = self._masks is not None and any(one.image in self._masked for one in own)
            landmarks = tuple(name for name in self._annotated.landmarks if name in seen)
            parts = self._masks.parts if self._masks is not None and masked else ()
            found[key] = ImportedCategory(landmarks=landmarks, parts=parts)
        return found

    def _notes(self) -> Iterator[str]:
        for same in self._digests.values():
            if len(same) > 1:
                yield f"photographs with the same content, which may be trained on and tested: {some_names(same)}"
        for key in dict.fromkeys(one.category for one in self._annotated.objects if one.category != NEGATIVE_KEY):
            own = {one.image for one in self._annotated.objects if one.category == key}
            if self._masks is not None and (lacking := sorted(own - self._masked)):
                yield (
                    f"{key}: no mask of {some_names(lacking)}, so no part interpretability: it needs the masks of all"
                )

    def _write_table(self) -> None:
        names = self._annotated.landmarks
        header = [IMAGE, CATEGORY, *CORNERS, *(f"{name}_{axis}" for name in names for axis in "xy")]
        with open(self._partial / OBJECTS, "w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(header)
            for one in self._annotated.objects:
                corners = [""] * len(CORNERS) if one.box is None else [repr(float(number)) for number in one.box]
                points = [one.landmarks.get(name) for name in names]
                marks = [cell for at in points for cell in _cells(at)]
                table.writerow([self._stored[one.image], one.category, *corners, *marks])


def _cells(point: tuple[float, float] | None) -> tuple[str, str]:
    return ("", "") if point is None else (repr(float(point[1])), repr(float(point[0])))


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@contextmanager
def _aside(data_root: Path, name: str) -> Iterator[Path]:
    """Yield a hidden folder in the data root, which is removed if it was not renamed."""
    is_new = not data_root.exists()
    try:
        data_root.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=data_root))
        partial.chmod(0o755)
        try:
            yield partial
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            if is_new and not any(data_root.iterdir()):
                data_root.rmdir()
    except OSError as error:
        raise StoreError(
            f"The data root {data_root} cannot be written: {error.strerror or error}. Make room there or repair its "
            "permissions, and repeat the command."
        ) from error


def _put_in_place(partial: Path, target: Path) -> None:
    """Rename the complete data set; an old one of this name is moved away first, and then removed."""
    if not target.exists():
        os.replace(partial, target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent)) / target.name
    os.replace(target, old)
    try:
        os.replace(partial, target)
    except OSError:
        os.replace(old, target)
        raise
    finally:
        shutil.rmtree(old.parent, ignore_errors=True)
