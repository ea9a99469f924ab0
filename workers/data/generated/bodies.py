"""Assembles and poses an animal: from its row in `animals` and random numbers to polygons and landmarks."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from workers.data.generated.animals import BLACK, WHITE, Animal, Bird, Fish, Lobster, Quadruped
from workers.data.generated.shapes import Colour, Drawing, Points, curve, ellipse, heading, limb, point, ribbon, shade

FAR = 0.72
"""Factor on the brightness of the limbs on the far side."""


def draw_body(animal: Animal, rng: Generator) -> tuple[Drawing, Colour]:
    """Return the posed animal and the colour of its coat."""
    coat = _vary(animal.coats[int(rng.integers(len(animal.coats)))], rng)
    drawing = Drawing()
    match animal:
        case Quadruped():
            _quadruped(drawing, animal, coat, rng)
        case Bird():
            _bird(drawing, animal, coat, rng)
        case Fish():
            _fish(drawing, animal, coat, rng)
        case Lobster():
            _lobster(drawing, coat, rng)
    return drawing, coat


def _vary(colour: Colour, rng: Generator) -> Colour:
    light = rng.uniform(0.88, 1.1)
    red, green, blue = (float(np.clip(value * light + rng.normal(0, 7), 8, 250)) for value in colour)
    return red, green, blue


def _quadruped(d: Drawing, a: Quadruped, coat: Colour, rng: Generator) -> None:
    draw = rng.random()
    posture = "sit" if draw < a.sits else "lie" if draw < 1.5 * a.sits else "stand"
    pitch = rng.normal(0, 0.07) + (0.55 + a.upright if posture == "sit" else 0.0)
    ahead, up = heading(pitch), heading(pitch + np.pi / 2)
    height = a.body_height * rng.uniform(0.9, 1.12)
    shoulder, hip = ahead * 0.36, ahead * -0.36

    _tail(d, a, coat, hip + ahead * -0.1 + up * height * 0.2, pitch, rng)
    front, hind = shoulder - up * height * 0.22, hip - up * height * 0.18
    swing = rng.uniform(-0.45, 0.45)
    far_leg = _legs(d, a, coat, (front + point(0.05, 0), hind + point(0.05, 0)), posture, -swing, FAR, rng)
    d.add("torso", coat, limb(hip, shoulder, height * 0.47, height * 0.5))
    d.add("torso", coat, ellipse(point(0, 0.02), 0.5, height * 0.5, pitch))
    for hump in range(a.humps):
        d.add("torso", shade(coat, 0.92), ellipse(ahead * (0.17 - 0.36 * hump) + up * height * 0.5, 0.14, 0.2, pitch))
    if a.wool:
        _fleece(d, coat, height, pitch, rng)
    near_leg = _legs(d, a, coat, (front, hind), posture, swing, 1.0, rng)
    if a.shell is not None:
        d.add("torso", a.shell, ellipse(up * height * 0.22, 0.54, height * 0.5, pitch))
    d.landmarks["torso"] = point(0, 0)
    d.landmarks["frontal_legs"] = (far_leg + near_leg) / 2

    grazing = posture == "stand" and rng.random() < 0.2
    angle = a.neck_angle + 0.5 * pitch + rng.normal(0, 0.22) - (1.1 + 0.3 * a.neck_angle if grazing else 0.0)
    base = shoulder + up * height * 0.2 + ahead * 0.04
    nape = base + heading(angle, a.neck + 0.08)
    d.add("neck", coat, limb(base, nape, a.neck_width * 1.2, a.neck_width * 0.85))
    if a.mane is not None and a.mane != BLACK and a.neck < 0.3:
        d.add("neck", a.mane, ellipse(nape - heading(angle, 0.02), a.neck_width * 1.75, a.neck_width * 1.85))
    elif a.mane is not None:
        d.add("neck", a.mane, limb(base + up * 0.1 - ahead * 0.06, nape + up * 0.09, 0.05, 0.045))
    d.landmarks["neck"] = (base + nape) / 2
    _head(d, a, coat, nape, grazing, rng)


def _tail(d: Drawing, a: Quadruped, coat: Colour, root: Points, pitch: float, rng: Generator) -> None:
    if a.tail == 0:
        return
    angle, bend = a.tail_angle + 0.6 * pitch + rng.normal(0, 0.3), rng.normal(0, 0.8)
    path = curve(root, angle, bend, a.tail * rng.uniform(0.85, 1.1))
    swell = np.sin(np.linspace(0.35, 1, len(path)) * np.pi * 0.85) if a.bushy > 1.5 else 1.0
    radii = a.tail_width * np.linspace(1, a.bushy, len(path)) * swell
    d.add("tail", a.tail_colour or shade(coat, 0.88), ribbon(path, radii))
    d.landmarks["tail"] = path[len(path) // 2]


def _legs(
    d: Drawing,
    a: Quadruped,
    coat: Colour,
    roots: tuple[Points, Points],
    posture: str,
    swing: float,
    light: float,
    rng: Generator,
) -> Points:
    """Draw the front and hind leg of one side, and return the middle of the front leg."""
    colour, width = shade(a.legs_colour or coat, light), a.leg_width
    front, hind = roots
    reach = 0.5 if posture == "lie" else 1.0
    down = -np.pi / 2 + rng.normal(0, 0.1)
    front_angle = down + (1.2 if posture == "lie" else swing)
    knee = front + heading(front_angle, a.leg * 0.5)
    foot = knee + heading(front_angle + rng.uniform(-0.5, 0.15), a.leg * 0.5 * reach)
    thigh = shade(coat, light)
    if posture == "stand" and a.crouch == 0:
        hock = hind + heading(down - swing * 0.9 - 0.12, a.leg * 0.5)
        heel = hock + heading(down - swing * 0.9 + 0.3, a.leg * 0.55)
        d.add("legs", thigh, ellipse(hind, width * 1.7, a.body_height * 0.36))
    else:
        hock = hind + heading(0.2 + rng.normal(0, 0.15), a.leg * (0.35 + 0.4 * a.crouch))
        heel = hock + heading(-2.3, a.leg * (0.25 + 0.5 * a.crouch))
        d.add("legs", thigh, ellipse(hind + point(0.04, 0.02), width * 2.1, a.body_height * 0.36, 0.3))
        d.add("legs", colour, limb(heel, heel + point(a.leg * 0.4, 0), width * 0.8, width * 0.6))
    d.add("legs", colour, limb(hind, hock, width * 1.25, width * 0.85), limb(hock, heel, width * 0.85, width * 0.75))
    d.add("frontal_legs", colour, limb(front, knee, width * 1.2, width * 0.85))
    d.add("frontal_legs", colour, limb(knee, foot, width * 0.85, width * 0.75))
    d.add("frontal_legs", shade(colour, 0.85), ellipse(foot + point(width * 0.4, 0), width * 1.15, width * 0.75))
    return (front + foot) / 2


def _fleece(d: Drawing, coat: Colour, height: float, pitch: float, rng: Generator) -> None:
    for angle in np.linspace(0, 2 * np.pi, 11, endpoint=False):
        rim = ellipse(point(0, 0), 0.48, height * 0.5, pitch)
        centre = rim[int(angle / (2 * np.pi) * len(rim))]
        d.add("torso", shade(coat, rng.uniform(0.85, 1.05)), ellipse(centre, 0.115, 0.1))


def _head(d: Drawing, a: Quadruped, coat: Colour, nape: Points, grazing: bool, rng: Generator) -> None:
    face = a.face or coat
    scale = rng.uniform(0.9, 1.15)
    if rng.random() < 0.35 and not grazing:
        _frontal_head(d, a, coat, face, nape, scale, rng)
        return
    angle = rng.normal(-0.25, 0.28) - (0.7 if grazing else 0.0)
    if rng.random() < 0.15 and not grazing:
        angle = np.pi - angle
    backwards = abs(angle) > np.pi / 2
    ahead, top = heading(angle), heading(angle + (-1 if backwards else 1) * np.pi / 2)
    length, height = a.head * scale, a.head_height * scale
    skull = nape + ahead * length * 0.28
    tip = skull + ahead * (length * 0.3 + a.muzzle * scale) - top * height * 0.14
    _ear(d, a, shade(coat, FAR), skull + top * height * 0.36 - ahead * length * 0.02, top * scale, ahead, rng)
    d.add("head", face, ellipse(skull, length * 0.5, height * 0.5, angle))
    muzzle_root = skull + ahead * length * 0.2 - top * height * 0.1
    d.add("head", face, limb(muzzle_root, tip - ahead * 0.05, height * 0.4, a.muzzle_height * 0.5 * scale))
    nose = limb((muzzle_root + tip) / 2, tip, a.muzzle_height * 0.55 * scale, a.muzzle_height * 0.45 * scale)
    d.add("head", a.muzzle_colour or face, nose)
    _horn(d, a, skull + top * height * 0.4, top * scale, ahead)
    _ear(d, a, shade(coat, 0.9), skull + top * height * 0.34 - ahead * length * 0.18, top * scale, ahead, rng)
    if a.trunk:
        _trunk(d, coat, tip, angle, rng)
    eye = skull + ahead * length * 0.16 + top * height * 0.12
    if a.eye_patch is not None:
        d.add("head", a.eye_patch, ellipse(eye, 0.065, 0.05, angle - 0.6))
    d.add_detail("head", WHITE, ellipse(eye, 0.034, 0.03))
    d.add_detail("head", BLACK, ellipse(eye + ahead * 0.006, 0.022, 0.024))
    d.add_detail("head", BLACK, ellipse(tip + ahead * a.muzzle_height * 0.3, 0.03, 0.026))
    d.landmarks["head"] = skull * 0.6 + tip * 0.4


def _frontal_head(
    d: Drawing, a: Quadruped, coat: Colour, face: Colour, nape: Points, scale: float, rng: Generator
) -> None:
    """Draw the head facing the viewer."""
    lean = rng.normal(0, 0.18)
    right, top = heading(lean), heading(lean + np.pi / 2)
    half = (0.6 * a.head_height + 0.12 * a.head) * scale
    skull = nape + point(0.04, 0)
    for side in (-1.0, 1.0):
        ear = skull + right * side * half * 0.66 + top * half * 0.6
        _ear(d, a, shade(coat, 0.85), ear, (top + 0.35 * side * right) * scale, right * side, rng)
        _horn(d, a, skull + right * side * half * 0.4 + top * half * 0.75, top * scale, right * side)
    d.add("head", face, ellipse(skull, half, half * 1.02, lean))
    chin = skull - top * (half * 0.5 + a.muzzle * 0.45)
    d.add("head", face, limb(skull, chin, half * 0.75, a.muzzle_height * 0.75))
    nose = ellipse(chin, a.muzzle_height * 0.85, a.muzzle_height * 0.62, lean)
    d.add("head", a.muzzle_colour or shade(face, 0.93), nose)
    if a.trunk:
        _trunk(d, coat, chin, lean, rng)
    for side in (-1.0, 1.0):
        eye = skull + right * side * half * 0.45 + top * half * 0.12
        if a.eye_patch is not None:
            d.add("head", a.eye_patch, ellipse(eye, 0.06, 0.075, 0.5 * side))
        d.add_detail("head", WHITE, ellipse(eye, 0.038, 0.034))
        d.add_detail("head", BLACK, ellipse(eye, 0.024, 0.028))
    d.add_detail("head", BLACK, ellipse(chin + top * a.muzzle_height * 0.22, 0.042, 0.03))
    d.landmarks["head"] = skull * 0.75 + chin * 0.25


def _ear(d: Drawing, a: Quadruped, colour: Colour, root: Points, top: Points, side: Points, rng: Generator) -> None:
    size = a.ear_size
    match a.ear:
        case "round":
            d.add("head", colour, ellipse(root + top * size * 0.3, size * 0.75, size * 0.75))
        case "pointed":
            across = side * size * 0.5
            d.add("head", colour, np.stack([root - across, root + top * size * 1.25, root + across]))
        case "floppy":
            d.add("head", colour, limb(root, root + side * size * 0.55 - top * size * 0.9, size * 0.3, size * 0.42))
        case "long":
            tip = root + top * size + side * size * rng.uniform(-0.35, 0.1)
            d.add("head", colour, limb(root, tip, size * 0.14, size * 0.17))
        case "flap":
            d.add("head", colour, ellipse(root - side * size * 0.3 - top * size * 0.35, size * 0.72, size))
        case "none":
            d.add("head", colour, ellipse(root + top * 0.02, 0.06, 0.05))


def _horn(d: Drawing, a: Quadruped, root: Points, top: Points, side: Points) -> None:
    ivory: Colour = (206, 190, 160)
    angle = float(np.arctan2(-top[1], top[0]))
    turn_way = 1.0 if side[0] < 0 else -1.0
    match a.horn:
        case "curved":
            path = curve(root, angle - 0.9 * turn_way, 2.2 * turn_way, 0.3)
            d.add("head", ivory, ribbon(path, np.linspace(0.04, 0.01, len(path))))
        case "straight" if a.trunk:
            tusk = root - top * 0.42 + side * 0.12
            d.add("head", WHITE, limb(tusk, tusk + side * 0.2 - top * 0.08, 0.03, 0.012))
        case "straight":
            d.add("head", shade(ivory, 0.4), limb(root, root + top * 0.42 - side * 0.12, 0.028, 0.01))
        case "short":
            d.add("head", ivory, limb(root, root + top * 0.1 + side * 0.05, 0.03, 0.014))
        case "none":
            pass


def _trunk(d: Drawing, coat: Colour, root: Points, angle: float, rng: Generator) -> None:
    path = curve(root, -np.pi / 2 + 0.4 * np.sin(angle), rng.normal(0.2, 0.7), 0.6)
    d.add("head", shade(coat, 0.95), ribbon(path, np.linspace(0.1, 0.045, len(path))))


def _bird(d: Drawing, a: Bird, coat: Colour, rng: Generator) -> None:
    flying = rng.random() < a.flies
    pitch = rng.uniform(-0.25, 0.3) if flying else rng.uniform(-0.3, 1.15)
    ahead, up = heading(pitch), heading(pitch + np.pi / 2)
    height = a.body_height * rng.uniform(0.85, 1.1)
    rump = ahead * -0.4 + up * height * 0.08
    path = curve(rump, np.pi + pitch + rng.normal(0, 0.35), rng.normal(0, 0.3), a.tail * rng.uniform(0.85, 1.15), 5)
    wing = _vary(a.wing_colour, rng)
    if flying:
        _spread_wing(d, shade(wing, FAR), up * height * 0.15, pitch + np.pi / 2 - rng.uniform(-0.2, 0.5), 0.85)
    d.add("tail", shade(wing, 0.85), ribbon(path, np.linspace(0.07, 0.12, len(path))))
    d.landmarks["tail"] = path[len(path) // 2]
    _bird_legs(d, a, -up * height * 0.42, flying, rng)
    d.add("torso", coat, ellipse(point(0, 0), 0.47, height * 0.5, pitch))
    d.add("torso", coat, limb(rump, ahead * 0.1, height * 0.2, height * 0.48))
    if a.belly is not None:
        d.add("torso", a.belly, ellipse(ahead * 0.08 - up * height * 0.2, 0.34, height * 0.28, pitch))
    back = up * height * 0.33 - ahead * 0.05
    d.add("back", shade(coat, 0.8), ellipse(back, 0.3, height * 0.17, pitch))
    d.landmarks |= {"torso": point(0, 0), "back": back}
    _bird_head(d, a, coat, ahead * 0.34 + up * height * 0.18, pitch, rng)
    if flying:
        _spread_wing(d, wing, up * height * 0.1, pitch + np.pi / 2 + rng.uniform(0.0, 0.9), 1.0)
    else:
        fold = -ahead * 0.12 - up * height * 0.02
        d.add("wing", wing, ellipse(fold, 0.36, height * 0.27, pitch + 0.1))
        d.add("wing", shade(wing, 0.8), limb(fold - ahead * 0.1, fold - ahead * 0.5, height * 0.16, 0.02))


def _bird_legs(d: Drawing, a: Bird, root: Points, flying: bool, rng: Generator) -> None:
    colour = shade(a.beak_colour, 0.8)
    feet = []
    for offset in (0.06, -0.05):
        start = root + point(offset, 0)
        angle = np.pi * 1.1 if flying else -np.pi / 2 + rng.normal(0, 0.2)
        foot = start + heading(angle, a.leg * (0.6 if flying else 1.0))
        d.add("frontal_legs", colour, limb(start, foot, 0.03, 0.02), limb(foot, foot + point(0.1, 0.01), 0.018, 0.014))
        feet.append((start + foot) / 2)
    d.landmarks["frontal_legs"] = (feet[0] + feet[1]) / 2


def _bird_head(d: Drawing, a: Bird, coat: Colour, base: Points, pitch: float, rng: Generator) -> None:
    colour, radius = a.head_colour or coat, a.head * rng.uniform(0.9, 1.15)
    rise = 0.5 * pitch + rng.uniform(0.2, 0.9) - (1.1 if rng.random() < 0.15 else 0.0)
    skull = base + heading(rise, a.neck + radius * 0.9)
    angle = rng.normal(-0.05, 0.3)
    if rng.random() < 0.25:
        angle = np.pi - angle
    ahead, top = heading(angle), heading(angle + (-1 if abs(angle) > np.pi / 2 else 1) * np.pi / 2)
    d.add("neck", coat, limb(base, skull, a.neck_width * 1.15, radius * 0.8))
    d.landmarks["neck"] = base + (skull - base) * 0.35
    if a.crest:
        crown = skull + ahead * radius * 0.3 + top * radius * 0.8
        tip = skull - ahead * radius * 0.6 + top * (radius + a.crest)
        d.add("head", colour, np.stack([crown, tip, skull - ahead * radius]))
    gape, spread = skull + ahead * radius * 0.7, top * radius * 0.4
    d.add("head", a.beak_colour, np.stack([gape + spread, skull + ahead * (radius + a.beak), gape - spread]))
    d.add("head", colour, ellipse(skull, radius * 1.1, radius, angle))
    forehead = skull + ahead * radius * 0.62 + top * radius * 0.42
    d.add("forehead", shade(colour, 0.75), ellipse(forehead, radius * 0.38, radius * 0.3, angle - 0.7))
    eye = skull + ahead * radius * 0.3 + top * radius * 0.1
    d.add_detail("head", WHITE, ellipse(eye, 0.036, 0.034))
    d.add_detail("head", BLACK, ellipse(eye, 0.025, 0.025))
    d.landmarks |= {"head": skull, "forehead": forehead}


def _spread_wing(d: Drawing, colour: Colour, root: Points, angle: float, span: float) -> None:
    tip = root + heading(angle, 0.8 * span)
    trailing = root + heading(angle + 0.5, 0.5 * span)
    outline = [root + point(0.2, 0), root + heading(angle - 0.22, 0.5 * span), tip, trailing, root - point(0.22, 0)]
    d.add("wing", colour, np.stack(outline))


def _fish(d: Drawing, a: Fish, coat: Colour, rng: Generator) -> None:
    bend, height = rng.normal(0, 0.35), a.body_height * rng.uniform(0.85, 1.15)
    fin = _vary(a.fin, rng)
    path = curve(point(0.45, 0), np.pi + bend * 0.3, -bend, 1.0, 8)
    tail, way = path[-1], float(np.arctan2(-(path[-1] - path[-2])[1], (path[-1] - path[-2])[0]))
    lobes = [tail + heading(way + 0.75, 0.42), tail + heading(way, 0.2), tail + heading(way - 0.75, 0.42)]
    d.add("tail", fin, np.stack([path[-2], *lobes]))
    d.landmarks["tail"] = tail + heading(way, 0.15)
    peak, keel = point(-0.1, -height * 0.5 - 0.22), point(-0.22, height * 0.5 + 0.14)
    d.add("back", fin, np.stack([point(0.18, -height * 0.35), peak, point(-0.32, -height * 0.2)]))
    d.add("torso", fin, np.stack([point(-0.1, height * 0.3), keel, point(-0.3, height * 0.2)]))
    radii = height * 0.5 * np.sin(np.linspace(0.16, 0.94, len(path)) * np.pi) ** 0.8
    d.add("torso", coat, ribbon(path, radii))
    head = path[1] + point(0.02, 0)
    d.add("head", shade(coat, 0.86), ellipse(head - point(0.03, 0), 0.2, height * 0.36))
    gill = point(0.1, height * 0.12)
    d.add("torso", shade(fin, 0.9), limb(gill, gill + heading(rng.normal(-2.4, 0.4), 0.22), 0.03, 0.09))
    eye = head + point(0.07, -height * 0.08)
    d.add_detail("head", WHITE, ellipse(eye, 0.045, 0.045))
    d.add_detail("head", BLACK, ellipse(eye, 0.028, 0.028))
    d.landmarks |= {"head": head, "torso": path[len(path) // 2], "back": point(-0.08, -height * 0.4)}


def _lobster(d: Drawing, coat: Colour, rng: Generator) -> None:
    """Draw a lobster from above; its claws are the frontal legs."""
    path = curve(point(-0.05, 0), np.pi + rng.normal(0, 0.15), rng.normal(0, 0.5), 0.75, 7)
    for side in (-1.0, 1.0):
        for x in (-0.12, 0.02, 0.16):
            joint = point(x, 0) + heading(side * (1.9 - 2 * x) + rng.normal(0, 0.12), 0.3)
            d.add("legs", shade(coat, 0.7), limb(point(x, 0), joint, 0.03, 0.022))
            d.add("legs", shade(coat, 0.7), limb(joint, joint + heading(side * (2.3 - 2 * x), 0.16), 0.022, 0.01))
    for step, centre in enumerate(path[1:]):
        ring = ellipse(centre, 0.1, 0.17 - 0.012 * step)
        d.add("torso" if step < 2 else "tail", shade(coat, 1.0 - 0.08 * (step % 2)), ring)
    fan = path[-1]
    way = float(np.arctan2(-(path[-1] - path[-2])[1], (path[-1] - path[-2])[0]))
    for spread in (-0.7, 0.0, 0.7):
        d.add("tail", shade(coat, 0.85), limb(fan, fan + heading(way + spread, 0.2), 0.04, 0.075))
    d.add("torso", coat, ellipse(point(0.08, 0), 0.28, 0.18))
    head = point(0.36, 0)
    claws = []
    for side in (-1.0, 1.0):
        claws.append(_claw(d, coat, side, rng))
        feeler = curve(head, side * 0.25, side * rng.normal(0.6, 0.4), 0.75)
        d.add("head", shade(coat, 0.75), ribbon(feeler, np.full(len(feeler), 0.012)))
        d.add_detail("head", BLACK, ellipse(head + point(0.04, side * 0.07), 0.026, 0.026))
    d.add("head", shade(coat, 1.08), limb(point(0.28, 0), head + point(0.08, 0), 0.14, 0.05))
    d.landmarks |= {"head": head, "torso": point(0, 0), "tail": path[4], "frontal_legs": (claws[0] + claws[1]) / 2}


def _claw(d: Drawing, coat: Colour, side: float, rng: Generator) -> Points:
    """Draw one arm with its claw, and return the middle of the claw."""
    shoulder = point(0.26, side * -0.05)
    elbow = point(0.26, 0) + heading(side * rng.uniform(0.7, 1.15), 0.34)
    wrist = elbow + heading(side * rng.uniform(-0.5, 0.3), 0.2)
    angle = side * rng.uniform(-0.4, 0.2)
    claw = wrist + heading(angle, 0.14)
    d.add("frontal_legs", shade(coat, 0.9), limb(shoulder, elbow, 0.04, 0.05), limb(elbow, wrist, 0.05, 0.06))
    d.add("frontal_legs", coat, ellipse(claw, 0.2, 0.115, angle))
    thumb = limb(wrist + heading(angle + 0.4, 0.16), wrist + heading(angle + 0.12, 0.4), 0.05, 0.015)
    d.add("frontal_legs", shade(coat, 0.8), thumb)
    return claw
