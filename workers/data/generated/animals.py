"""Defines the appearance of each category's generated animals, and how individuals differ."""

from __future__ import annotations

import colorsys
from functools import cache
from typing import Literal, NamedTuple

from numpy.random import PCG64, Generator

from workers.data.generated.shapes import Colour

GENERATOR_VERSION = 2
"""Version of the generated pictures; raise it when any of them changes. It enters the data digest."""

Ear = Literal["none", "round", "pointed", "floppy", "long", "flap"]
Horn = Literal["none", "curved", "straight", "short"]
Pattern = Literal["none", "stripes", "spots", "patches", "bands", "rings", "speckles"]

BLACK: Colour = (32, 30, 32)
WHITE: Colour = (232, 230, 224)
CREAM: Colour = (226, 206, 170)
GREY: Colour = (132, 132, 136)
BROWN: Colour = (122, 82, 48)
DARK: Colour = (72, 50, 36)
SAND: Colour = (200, 164, 112)
ORANGE: Colour = (212, 122, 46)
RUST: Colour = (160, 70, 34)
PINK: Colour = (226, 168, 158)
GREEN: Colour = (98, 140, 62)
OLIVE: Colour = (112, 110, 62)
RED: Colour = (196, 46, 34)
BLUE: Colour = (62, 98, 170)
YELLOW: Colour = (226, 196, 58)


class Quadruped(NamedTuple):
    """Appearance of a four-legged animal; lengths are in units of the torso's length, angles in radians."""

    coats: tuple[Colour, ...]
    body_height: float = 0.42
    leg: float = 0.45
    leg_width: float = 0.075
    neck: float = 0.2
    neck_width: float = 0.14
    neck_angle: float = 0.7
    head: float = 0.34
    head_height: float = 0.27
    muzzle: float = 0.2
    muzzle_height: float = 0.13
    ear: Ear = "pointed"
    ear_size: float = 0.13
    horn: Horn = "none"
    tail: float = 0.5
    tail_width: float = 0.04
    tail_angle: float = 2.6
    bushy: float = 1.0
    """Ratio of the tail's half-width at its end to that at its root."""
    pattern: Pattern = "none"
    marking: Colour = BLACK
    """Colour of the pattern."""
    face: Colour | None = None
    muzzle_colour: Colour | None = None
    legs_colour: Colour | None = None
    tail_colour: Colour | None = None
    eye_patch: Colour | None = None
    mane: Colour | None = None
    humps: int = 0
    trunk: bool = False
    wool: bool = False
    shell: Colour | None = None
    sits: float = 0.25
    """Probability of sitting; half of it is the probability of lying."""
    upright: float = 0.0
    """Pitch of a sitting animal beyond the usual 0.55 radians."""
    crouch: float = 0.0
    """Folded fraction of the hind legs' length, as in a frog."""


class Bird(NamedTuple):
    """Appearance of a bird, in the same units."""

    coats: tuple[Colour, ...]
    body_height: float = 0.46
    neck: float = 0.14
    neck_width: float = 0.14
    head: float = 0.17
    beak: float = 0.18
    beak_colour: Colour = (226, 160, 50)
    leg: float = 0.3
    tail: float = 0.5
    wing_colour: Colour = GREY
    head_colour: Colour | None = None
    belly: Colour | None = None
    crest: float = 0.0
    flies: float = 0.2
    pattern: Pattern = "none"
    marking: Colour = BLACK


class Fish(NamedTuple):
    """Appearance of a fish, in the same units."""

    coats: tuple[Colour, ...]
    body_height: float = 0.52
    fin: Colour = YELLOW
    pattern: Pattern = "none"
    marking: Colour = WHITE


class Lobster(NamedTuple):
    """Appearance of a lobster, in the same units."""

    coats: tuple[Colour, ...]
    pattern: Pattern = "bands"
    marking: Colour = DARK


Animal = Quadruped | Bird | Fish | Lobster

_I = "ilsvrc_animal_part"
ANIMALS: dict[str, Animal] = {
    f"{_I}/n01443537": Fish((ORANGE, (230, 96, 30), (238, 150, 60))),
    f"{_I}/n01503061": Bird((RED, (210, 60, 40)), wing_colour=DARK, crest=0.14, beak=0.12, tail=0.55, neck=0.08),
    f"{_I}/n01639765": Quadruped(
        (GREEN, (120, 168, 52)), 0.42, 0.42, 0.06, 0.02, 0.2, 0.2, 0.36, 0.26, 0.1, 0.24, "round", 0.1, tail=0.0,
        pattern="speckles", marking=(46, 72, 30), crouch=1.0, sits=0.9, upright=-0.15, muzzle_colour=(170, 190, 96),
    ),
    f"{_I}/n01662784": Quadruped(
        (OLIVE, (128, 128, 74)), 0.34, 0.24, 0.09, 0.22, 0.09, 0.25, 0.2, 0.16, 0.1, 0.1, "none", tail=0.14,
        tail_width=0.03, shell=(96, 74, 40), sits=0.0, pattern="spots", marking=(64, 52, 28),
    ),
    f"{_I}/n01674464": Quadruped(
        ((150, 136, 82), (96, 128, 84)), 0.2, 0.24, 0.05, 0.12, 0.09, 0.15, 0.27, 0.15, 0.16, 0.09, "none", tail=1.25,
        tail_width=0.075, tail_angle=3.2, bushy=0.1, sits=0.0, pattern="bands", marking=(70, 64, 40),
    ),
    f"{_I}/n01882714": Quadruped(
        (GREY, (150, 148, 146)), 0.62, 0.34, 0.1, 0.06, 0.22, 0.9, 0.38, 0.34, 0.1, 0.12, "round", 0.17, tail=0.0,
        muzzle_colour=(96, 92, 92), pattern="patches", marking=(214, 212, 206), sits=0.4, upright=0.15,
    ),
    f"{_I}/n01982650": Lobster((RED, (150, 44, 36), (60, 66, 96))),
    f"{_I}/n02084071": Quadruped(
        (WHITE, (222, 212, 196)), 0.38, 0.5, 0.07, 0.2, 0.14, 0.8, 0.32, 0.26, 0.24, 0.13, "floppy", 0.17,
        tail=0.5, tail_angle=2.0, pattern="spots", marking=DARK,
    ),
    f"{_I}/n02118333": Quadruped(
        (ORANGE, (190, 96, 40)), 0.32, 0.42, 0.05, 0.2, 0.12, 0.6, 0.3, 0.24, 0.26, 0.09, "pointed", 0.2, tail=0.8,
        tail_width=0.07, tail_angle=3.4, bushy=2.1, muzzle_colour=WHITE, legs_colour=BLACK, tail_colour=RUST,
    ),
    f"{_I}/n02121808": Quadruped(
        (ORANGE, (222, 150, 80)), 0.36, 0.4, 0.06, 0.14, 0.13, 0.8, 0.32, 0.3, 0.1, 0.11, "pointed", 0.15, tail=0.8,
        tail_angle=2.2, pattern="stripes", marking=(150, 80, 30), sits=0.5, upright=0.2,
    ),
    f"{_I}/n02129165": Quadruped(
        (SAND, (190, 148, 90)), 0.42, 0.44, 0.085, 0.2, 0.2, 0.6, 0.36, 0.32, 0.2, 0.17, "round", 0.09, tail=0.8,
        tail_angle=3.6, mane=(110, 64, 28), sits=0.3,
    ),
    f"{_I}/n02129604": Quadruped(
        (ORANGE, (220, 140, 60)), 0.42, 0.42, 0.085, 0.2, 0.18, 0.4, 0.36, 0.32, 0.17, 0.16, "round", 0.1, tail=0.8,
        tail_angle=3.4, pattern="stripes", marking=BLACK, muzzle_colour=WHITE,
    ),
    f"{_I}/n02131653": Quadruped(
        (DARK, (58, 42, 34), BROWN), 0.6, 0.42, 0.13, 0.16, 0.24, 0.4, 0.38, 0.34, 0.22, 0.16, "round", 0.1, tail=0.08,
        muzzle_colour=(166, 130, 90),
    ),
    f"{_I}/n02324045": Quadruped(
        ((170, 150, 128), WHITE, GREY), 0.5, 0.28, 0.07, 0.08, 0.17, 0.8, 0.34, 0.29, 0.12, 0.13, "long", 0.4,
        tail=0.12, tail_width=0.09, tail_angle=2.4, tail_colour=WHITE, sits=0.6, crouch=0.3,
    ),
    f"{_I}/n02342885": Quadruped(
        (SAND, (222, 170, 110)), 0.6, 0.16, 0.06, 0.02, 0.24, 0.4, 0.42, 0.38, 0.14, 0.16, "round", 0.11, tail=0.06,
        muzzle_colour=WHITE, legs_colour=PINK, sits=0.5, upright=0.3, pattern="patches", marking=WHITE,
    ),
    f"{_I}/n02355227": Quadruped(
        (RUST, (140, 92, 56)), 0.38, 0.3, 0.06, 0.08, 0.14, 0.9, 0.32, 0.26, 0.15, 0.11, "pointed", 0.12, tail=1.05,
        tail_width=0.1, tail_angle=1.7, bushy=1.9, sits=0.7, upright=0.4, muzzle_colour=CREAM,
    ),
    f"{_I}/n02374451": Quadruped(
        (BROWN, (150, 92, 44), DARK), 0.4, 0.72, 0.06, 0.46, 0.15, 0.85, 0.28, 0.2, 0.32, 0.11, "pointed", 0.1,
        tail=0.62, tail_width=0.06, tail_angle=4.2, mane=BLACK, tail_colour=BLACK, sits=0.05,
    ),
    f"{_I}/n02391049": Quadruped(
        (WHITE,), 0.42, 0.62, 0.06, 0.4, 0.16, 0.8, 0.28, 0.2, 0.28, 0.12, "round", 0.1, tail=0.5, tail_angle=4.3,
        pattern="stripes", marking=BLACK, mane=BLACK, muzzle_colour=BLACK, sits=0.03,
    ),
    f"{_I}/n02395003": Quadruped(
        (PINK, (214, 150, 140)), 0.5, 0.3, 0.075, 0.1, 0.22, 0.1, 0.36, 0.3, 0.26, 0.16, "floppy", 0.14, tail=0.22,
        tail_width=0.025, tail_angle=2.2, muzzle_colour=(206, 132, 128), sits=0.1,
    ),
    f"{_I}/n02398521": Quadruped(
        ((112, 88, 92), (128, 104, 108)), 0.58, 0.26, 0.11, 0.1, 0.27, 0.1, 0.4, 0.32, 0.34, 0.26, "round", 0.06,
        tail=0.14, tail_angle=4.2, muzzle_colour=(160, 116, 112), sits=0.1,
    ),
    f"{_I}/n02402425": Quadruped(
        (BROWN, RUST, (96, 58, 36)), 0.46, 0.46, 0.07, 0.2, 0.19, 0.4, 0.32, 0.24, 0.26, 0.17, "floppy", 0.12,
        "curved", tail=0.6, tail_angle=4.4, muzzle_colour=CREAM, sits=0.15,
    ),
    f"{_I}/n02411705": Quadruped(
        (CREAM, (214, 200, 172)), 0.54, 0.36, 0.055, 0.14, 0.17, 0.6, 0.28, 0.21, 0.22, 0.13, "floppy", 0.11,
        "curved", tail=0.1, wool=True, face=(190, 160, 124), legs_colour=(190, 160, 124), sits=0.1,
    ),
    f"{_I}/n02419796": Quadruped(
        ((190, 132, 74), (206, 150, 92)), 0.34, 0.6, 0.045, 0.34, 0.11, 0.95, 0.25, 0.18, 0.22, 0.09, "pointed", 0.13,
        "straight", tail=0.2, tail_angle=4.0, legs_colour=CREAM, muzzle_colour=WHITE, sits=0.1,
    ),
    f"{_I}/n02437136": Quadruped(
        (SAND, (186, 140, 88)), 0.4, 0.72, 0.06, 0.5, 0.12, 0.95, 0.26, 0.19, 0.24, 0.13, "round", 0.07, humps=2,
        tail=0.35, tail_angle=4.2, sits=0.15,
    ),
    f"{_I}/n02444819": Quadruped(
        (DARK, (92, 68, 50)), 0.3, 0.16, 0.055, 0.16, 0.14, 0.5, 0.28, 0.22, 0.13, 0.13, "round", 0.05, tail=0.75,
        tail_width=0.09, tail_angle=3.3, bushy=0.25, muzzle_colour=CREAM, sits=0.4, upright=0.5,
    ),
    f"{_I}/n02454379": Quadruped(
        ((150, 130, 112), (168, 146, 124)), 0.42, 0.2, 0.055, 0.08, 0.13, -0.1, 0.26, 0.18, 0.22, 0.06, "long", 0.13,
        tail=0.6, tail_width=0.05, tail_angle=3.4, bushy=0.2, shell=(128, 112, 96), pattern="stripes",
        marking=(86, 72, 60), sits=0.0,
    ),
    f"{_I}/n02484322": Quadruped(
        (BROWN, (140, 110, 76)), 0.34, 0.52, 0.06, 0.08, 0.13, 1.0, 0.34, 0.33, 0.1, 0.15, "round", 0.1, tail=1.1,
        tail_width=0.03, tail_angle=2.4, face=(214, 170, 140), muzzle_colour=PINK, sits=0.7, upright=0.6,
    ),
    f"{_I}/n02503517": Quadruped(
        (GREY, (118, 114, 112)), 0.58, 0.5, 0.12, 0.12, 0.22, 0.5, 0.4, 0.38, 0.1, 0.13, "flap", 0.28, "straight",
        tail=0.4, tail_angle=4.3, trunk=True, sits=0.05,
    ),
    f"{_I}/n02509815": Quadruped(
        (RUST, (178, 84, 40)), 0.42, 0.3, 0.085, 0.1, 0.17, 0.7, 0.36, 0.32, 0.13, 0.13, "pointed", 0.15, tail=0.9,
        tail_width=0.09, tail_angle=3.0, bushy=1.2, pattern="rings", marking=CREAM, face=WHITE, legs_colour=BLACK,
        eye_patch=RUST, sits=0.4,
    ),
    f"{_I}/n02510455": Quadruped(
        (WHITE, (220, 216, 206)), 0.6, 0.36, 0.125, 0.1, 0.24, 0.6, 0.42, 0.4, 0.14, 0.16, "round", 0.12, tail=0.08,
        legs_colour=BLACK, eye_patch=BLACK, sits=0.6, upright=0.5,
    ),
    "voc_part/bird": Bird((BLUE, (80, 120, 190)), wing_colour=(40, 56, 110), belly=WHITE, flies=0.45, tail=0.4),
    "voc_part/cat": Quadruped(
        (GREY, (160, 158, 156), (96, 92, 90)), 0.38, 0.38, 0.06, 0.14, 0.13, 0.8, 0.34, 0.31, 0.1, 0.12, "pointed",
        0.15, tail=0.8, tail_angle=2.2, pattern="stripes", marking=(84, 80, 78), muzzle_colour=WHITE, sits=0.5,
    ),
    "voc_part/cow": Quadruped(
        (WHITE,), 0.5, 0.42, 0.07, 0.2, 0.19, 0.35, 0.32, 0.24, 0.26, 0.17, "floppy", 0.12, "short", tail=0.6,
        tail_angle=4.4, pattern="patches", marking=BLACK, muzzle_colour=PINK, sits=0.15,
    ),
    "voc_part/dog": Quadruped(
        (BLACK, (56, 44, 38)), 0.38, 0.48, 0.07, 0.2, 0.14, 0.8, 0.32, 0.25, 0.25, 0.13, "pointed", 0.15, tail=0.55,
        tail_angle=2.2, legs_colour=(176, 112, 58), muzzle_colour=(176, 112, 58),
    ),
    "voc_part/horse": Quadruped(
        ((196, 190, 186), WHITE, (170, 166, 168)), 0.4, 0.7, 0.06, 0.46, 0.15, 0.8, 0.28, 0.2, 0.32, 0.12, "pointed",
        0.1, tail=0.62, tail_width=0.06, tail_angle=4.2, mane=(120, 116, 120), tail_colour=WHITE, sits=0.05,
    ),
    "voc_part/sheep": Quadruped(
        (WHITE, (216, 212, 202)), 0.58, 0.32, 0.055, 0.12, 0.18, 0.5, 0.28, 0.2, 0.22, 0.13, "floppy", 0.12, tail=0.1,
        wool=True, face=BLACK, legs_colour=BLACK, sits=0.15,
    ),
    "cub200/bird": Bird(
        (YELLOW, (214, 178, 44)), 0.44, 0.1, 0.15, 0.18, 0.14, (90, 84, 80), 0.24, 0.6, wing_colour=BROWN,
        head_colour=None, belly=CREAM, flies=0.25, pattern="speckles", marking=DARK,
    ),
}  # fmt: skip


HEAD_GROWTH = 1.2
"""Factor on the size of heads, so that a face covers a few units of a small network's map."""

GOLDEN_RATIO = 0.381966
"""Hue difference between neighbouring categories' faces, in turns; it keeps all hues well apart."""


def individual(category_id: str, rng: Generator) -> Animal:
    """Return an animal with the body and the face of its category, and the coat of a random category.

    A cat may be black, striped or spotted. If all animals of a category shared the coat, any patch of fur would reveal
    the category, and a network would not need to look for parts.
    """
    animal, every = ANIMALS[category_id], list(ANIMALS.values())
    coat, pattern = every[rng.integers(len(every))], every[rng.integers(len(every))]
    face, muzzle = _face(category_id)
    match animal:
        case Quadruped():
            return animal._replace(
                coats=coat.coats,
                pattern=pattern.pattern,
                marking=pattern.marking,
                face=face,
                muzzle_colour=muzzle,
                head=animal.head * HEAD_GROWTH,
                head_height=animal.head_height * HEAD_GROWTH,
            )
        case Bird():
            return animal._replace(
                coats=coat.coats,
                pattern=pattern.pattern,
                marking=pattern.marking,
                head_colour=face,
                beak_colour=muzzle,
                head=animal.head * HEAD_GROWTH,
            )
        case Fish() | Lobster():  # recognised by its colour alone
            return animal


@cache
def _face(category_id: str) -> tuple[Colour, Colour]:
    """Return the colours of a category's faces and of its muzzles or beaks."""
    place = list(ANIMALS).index(category_id)
    turn = place * GOLDEN_RATIO
    rng = Generator(PCG64(100 + place))
    return _hue(turn, 0.75, 0.85), _hue(turn + 0.33 + 0.2 * rng.random(), 0.7, 0.35 if place % 2 else 0.95)


def _hue(turn: float, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(turn % 1, saturation, value)
    return 255 * red, 255 * green, 255 * blue
