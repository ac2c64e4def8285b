"""Ten garments, a stand-in for Fashion-MNIST. A function draws each one: it fills spans of a view of front or side."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from datamix.sources.synthetic.procedural import GRID, SIDE, Procedural, Vary

_CENTRE = (SIDE - 1) / 2
_NAMES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


def garments(*, split: str = "train", seed: int = 0, cache_dir: str | None = None) -> Procedural:
    """Ten garments, from T-shirt/top to Ankle boot, light on black.

    Args:
      split: The records to read, in TFDS's syntax; train holds 20,000 and test 4,000.
      seed: The seed of the drawing; another seed draws other records.
      cache_dir: The directory of the cache; by default $XDG_CACHE_HOME/datamix, else ~/.cache/datamix.

    >>> source = garments(split="test[:100]")
    >>> source.num_records, source.class_names[:3], source.class_names[-1]
    (100, ('T-shirt/top', 'Trouser', 'Pullover'), 'Ankle boot')
    >>> source.read()["image"].shape
    (100, 28, 28, 1)
    """
    return Procedural("garments", _NAMES, _draw_garment, grain=0.08, split=split, seed=seed, cache_dir=cache_dir)


_Number = float | np.ndarray  # of shape [records]
_Knot = tuple[_Number, _Number] | tuple[_Number, _Number, _Number]


@dataclass(frozen=True)
class _View:
    """The coordinates of pictures, in nominal pixels: garments are drawn at one size, upright and centred.

    Attributes:
      along: The axis along which a garment is outlined, from top to bottom or from toe to heel, shape [records, 28].
      aside: How far a pixel lies from the garment's axis, or from the top, shape [records, 28 (along), 28].
    """

    along: np.ndarray
    aside: np.ndarray

    @classmethod
    def front(cls, vary: Vary) -> _View:
        """Rows from the top, and distances from an upright axis: shapes appear on both sides of it."""
        along = (GRID - _CENTRE + vary(-1.2, 1.2)[:, None]) * vary(0.98, 1.15)[:, None] + _CENTRE
        axis = _CENTRE + vary(-1, 1)[:, None] + vary(-0.06, 0.06)[:, None] * (along - _CENTRE)
        return cls(along, np.abs(GRID - axis[:, :, None]) * vary(0.95, 1.15)[:, None, None])

    @classmethod
    def side(cls, vary: Vary) -> _View:
        """Columns from the toe, at the left, to the heel, and rows from the top."""
        along = (GRID - _CENTRE + vary(-1, 1)[:, None]) * vary(0.98, 1.15)[:, None] + _CENTRE
        down = vary(-1.5, 2.5)[:, None] - vary(-0.06, 0.06)[:, None] * (along - _CENTRE)
        return cls(along, (GRID + down[:, :, None]) * vary(0.95, 1.1)[:, None, None])

    def fill(self, *knots: _Knot) -> np.ndarray:
        """The part of each pixel that a shape covers, 0 to 1, shape of `aside`.

        Args:
          knots: Points from the first to the last along the axis, as (along, far edge) or (along, near edge, far edge);
            edges are straight between knots.
        """
        table = np.empty((len(knots[0]), len(knots), len(self.along), 1), np.float32)
        for index, knot in enumerate(knots):
            for number, row in zip(knot, table[:, index, :, 0], strict=True):
                row[:] = number
        at, *edges = table
        # The share of each stretch between knots that lies before each line: an edge is its start plus these rises.
        passed = np.clip((self.along - at[:-1]) / np.maximum(np.diff(at, axis=0), 1e-3), 0, 1)
        *near, far = (edge[0] + np.sum(passed * np.diff(edge, axis=0), axis=0) for edge in edges)
        cover: np.ndarray = (far + 0.5)[:, :, None] - self.aside
        if near:
            np.minimum(cover, self.aside - (near[0] - 0.5)[:, :, None], out=cover)
        within = np.clip(np.minimum(self.along - at[0], at[-1] - self.along) + 0.5, 0, 1)
        np.maximum(cover, 0, out=cover)
        np.minimum(cover, within[:, :, None], out=cover)
        return cover


def _times(part: np.ndarray, factor: _Number) -> np.ndarray:
    return part * np.reshape(np.float32(factor), (-1, 1, 1))


def _darken(tone: np.ndarray, mark: np.ndarray, strength: _Number) -> None:
    """Remove this share of the light where the mark is, in place; a strength below 0 adds light."""
    light = _times(mark, -strength)
    light += 1
    tone *= light


def _join(*parts: np.ndarray) -> np.ndarray:
    whole: np.ndarray = functools.reduce(np.maximum, parts)
    return whole


def _torso(view: _View, vary: Vary, hem: np.ndarray, chest: np.ndarray, neck: np.ndarray) -> np.ndarray:
    torso = view.fill((3, neck + 1.5), (5.5, 8), (9, chest), (hem, chest + vary(-0.5, 1)))
    depth = vary(4, 7)
    _darken(torso, view.fill((2, neck), (depth - 1, neck * vary(0.3, 0.9)), (depth, 0)), 0.85)
    return torso


def _sleeves(view: _View, vary: Vary, long: _Number) -> np.ndarray:
    """Both sleeves, in a tone of their own: short if `long` is 0, and down to the hem if it is 1."""

    def cut(short: _Number, full: _Number) -> _Number:
        return short + (full - short) * long

    wide, elbow = vary(11.5, 13.5), cut(vary(8, 11), 8.5)
    cuff, end = elbow + cut(2, vary(13, 16)), cut(wide - 1.5, vary(11.5, 13.3))
    sleeves = view.fill((4, 5, 6.5), (elbow, 6, cut(wide, 10)), (cuff, end - 2.8, end))
    return _times(sleeves, vary(0.75, 1))


def _t_shirt(vary: Vary) -> np.ndarray:
    view = _View.front(vary)
    torso = _torso(view, vary, hem=vary(23, 26), chest=vary(6.2, 8), neck=vary(2, 4.5))
    _darken(torso, view.fill((10, 3), (16, 3)), vary(-0.6, 0.6) * vary.chance(0.5))  # a print
    return _join(torso, _sleeves(view, vary, vary(0, 0.3)))


def _trouser(vary: Vary) -> np.ndarray:
    view = _View.front(vary)
    waist, hips, crotch, gap, ankle = vary(4, 5.5), vary(5.2, 7), vary(7, 12), vary(0.7, 3), vary(2.8, 4.2)
    hem = vary(25.5, 27.5)
    legs = view.fill((1, -1, waist), (crotch, -1, hips), (crotch + 1, 0.2, hips), (hem, gap, gap + ankle))
    _darken(legs, view.fill((0, 9), (2.2, 9)), vary(0, 0.4))  # the waistband
    _darken(legs, view.fill((3, 0.3), (crotch, 0.3)), vary(0, 0.5))  # the fly
    return legs


def _pullover(vary: Vary) -> np.ndarray:
    view = _View.front(vary)
    hem, ribs, chest = vary(23.5, 26.5), vary(0.05, 0.4), vary(7, 13)
    torso = _torso(view, vary, hem=hem, chest=vary(6.4, 8.2), neck=vary(1.8, 3.8))
    _darken(torso, view.fill((hem - 2.5, 14), (hem + 1, 14)), ribs)
    _darken(torso, view.fill((chest, 14), (chest + 3, 14)), vary(-0.4, 0.4) * vary.chance(0.5))
    return _join(torso, _sleeves(view, vary, vary(0.8, 1)))


def _dress(vary: Vary) -> np.ndarray:
    view = _View.front(vary)
    bust, waist, flare, middle = vary(3.8, 5.2), vary(3, 4.5), vary(4.5, 9.5), vary(9, 13)
    dress = view.fill((1, bust - 1), (6, bust), (middle, waist), (vary(24, 27), flare))
    _darken(dress, view.fill((0, bust - 2), (vary(3, 6), 0.2)), 0.9)  # the neckline, between straps
    _darken(dress, view.fill((middle - 1, 9), (middle + 0.5, 9)), vary(-0.3, 0.5))  # the belt
    sleeve = vary(0, 4) * vary.chance(0.6)
    return _join(dress, view.fill((1.5, 2, bust - 1), (5 + sleeve * 1.5, bust - 1, bust + sleeve)))


def _coat(vary: Vary) -> np.ndarray:
    view = _View.front(vary)
    hem, lapel, pocket = vary(25, 27.5), vary(7, 15), vary(15, 19)
    torso = _torso(view, vary, hem=hem, chest=vary(6.8, 8.6), neck=vary(1.8, 3))
    _darken(torso, view.fill((3, 1.5, 3), (lapel, 0, 0.5)), vary(0.1, 0.6))
    _darken(torso, view.fill((5, 0.4), (hem, 0.4)), vary(0.4, 0.95))  # the opening
    _darken(torso, view.fill((pocket, 2.5, 5.5), (pocket + 1, 2.5, 5.5)), vary(0, 0.6))
    return _join(torso, _sleeves(view, vary, vary(0.85, 1)))


def _sandal(vary: Vary) -> np.ndarray:
    view = _View.side(vary)
    heel, thick, wide, rise = vary(0, 5), vary(1, 2.2), vary(1.3, 2.4), vary(3, 5.5)
    bed = 22 - heel  # the row of the footbed at the heel
    sole = view.fill((1, 22, 22 + thick), (10, 22, 22.5 + thick), (19, bed, bed + thick), (26, bed, bed + thick + 1))
    block = view.fill((vary(20, 24), bed, 23 + thick), (26, bed, 23 + thick))
    end, top, ankle = vary(8, 12), 22 - rise, bed - vary(5, 8)
    toes = view.fill((3, 21.5, 22), (6, top + 1, 22), (end, top, 22), (end + 2, top + 1, 22))
    _darken(toes, view.fill((7, 25), (8, 25)), vary.chance(0.5))  # a gap makes two straps of it
    across = vary(14, 18)
    instep = view.fill((end, top, top + wide), (across, ankle + 0.5, ankle + 0.5 + wide), (25, ankle, ankle + wide))
    side = view.fill((across, ankle + 1, ankle + 1 + wide), (24, bed - 1, bed + wide))
    cup = view.fill((vary(20, 24), bed - 1, bed), (25.5, ankle, bed), (26, ankle, bed))
    straps = _join(instep, _times(side, vary.chance(0.4)), cup)
    return _join(sole, block, _times(_join(toes, straps), vary(0.75, 1))).swapaxes(1, 2)


def _shirt(vary: Vary) -> np.ndarray:
    view = _View.front(vary)
    hem, step = vary(23.5, 26.5), vary(2.6, 3.6)[:, None]
    torso = _torso(view, vary, hem=hem, chest=vary(5.8, 7.6), neck=vary(1.5, 3))
    _darken(torso, view.fill((2, 1, 4), (5.5, 1.5, 3)), vary(-0.6, -0.1))  # the collar
    _darken(torso, view.fill((5, 0.8, 1.6), (hem, 0.8, 1.6)), vary(0, 0.4))  # the placket
    buttons = view.fill((6, 0.5), (hem, 0.5)) * (view.along % step < 1.2)[:, :, None]
    _darken(torso, buttons, vary(0.3, 0.9))
    return _join(torso, _sleeves(view, vary, vary(0, 0.2) + 0.8 * vary.chance(0.7)))


def _sneaker(vary: Vary) -> np.ndarray:
    view = _View.side(vary)
    toe, collar, tongue = vary(16.5, 18.5), vary(11, 13.5), vary(12, 15)
    instep = (tongue, collar - 1, 22), (tongue + 2, collar, 22)
    heel = (20, collar + 1.5, 22), (25, collar - 1, 22), (26.5, 19, 22)
    upper = view.fill((1, 19.5, 22), (3, toe, 22), (8, toe - 1.5, 22), *instep, *heel)
    for lace in (0.3, 0.6, 0.9):
        at = 7 + (tongue - 7) * lace
        _darken(upper, view.fill((at - 1, 12, 17.5), (at, 12, 17.5)), vary(0.1, 0.7))
    _darken(upper, view.fill((10, 18, 20), (22, 15, 16.5)), vary(-0.6, 0.6))  # the flash
    sole = view.fill((0.5, 21.5, 22.5), (2, 21.5, 24), (26, 21.5, 24), (27, 21, 23))
    _darken(upper, sole, 1)
    return _join(upper, _times(sole, vary(0.5, 1.3))).swapaxes(1, 2)


def _bag(vary: Vary) -> np.ndarray:
    view = _View.front(vary)
    top, mouth, base, floor = vary(9, 14), vary(7, 11.5), vary(8.5, 12.5), vary(21, 26)
    bag = view.fill((top, mouth), (top + 1, mouth + 0.5), (floor - 1, base), (floor, base - 1))
    flap = top + vary(2, 7)
    _darken(bag, view.fill((flap, 14), (flap + 1, 14)), vary(0, 0.7))
    _darken(bag, view.fill((flap - 1, 0.8), (flap + 2, 0.8)), vary(-0.6, 0.6))  # the clasp
    grip, thick, arch = vary(3, 6.5), vary(0.8, 1.8), top - vary(3.5, 9)
    outside = view.fill((arch, grip * 0.6), (arch + 2, grip), (top, grip))
    inside = view.fill((arch + thick, grip * 0.6 - thick), (arch + 2 + thick, grip - thick), (top + 1, grip - thick))
    return _join(bag, _times(outside - np.minimum(inside, outside), vary(0.6, 1)))


def _ankle_boot(vary: Vary) -> np.ndarray:
    view = _View.side(vary)
    top, toe, front, heel = vary(4, 9), vary(17, 20), vary(10, 14), vary(0.5, 3)
    shaft = (front, 14, 23), (front + 1.5, top, 23), (25, top - 0.5, 22)
    boot = view.fill((1, 21, 23), (3, toe, 23), (7, toe - 1.5, 23), *shaft, (26, 16, 22))
    _darken(boot, view.fill((front + 5, top, 15), (front + 6.5, top, 15)), vary(-0.3, 0.6))  # the elastic
    sole = view.fill((1, 21.5, 23), (26, 21.5, 23))
    _darken(boot, sole, vary(0, 0.6))
    return _join(boot, view.fill((vary(17, 20), 22, 22.5 + heel), (26, 22, 22.5 + heel)) * 0.8).swapaxes(1, 2)


# By label, in the order of `_NAMES`.
_GARMENTS = (_t_shirt, _trouser, _pullover, _dress, _coat, _sandal, _shirt, _sneaker, _bag, _ankle_boot)


def _draw_garment(label: int, vary: Vary) -> np.ndarray:
    def wave() -> np.ndarray:
        light: np.ndarray = vary(0, 0.12)[:, None] * np.sin(vary(0.2, 1.6)[:, None] * GRID + vary(0, 6.3)[:, None])
        return light + 1

    garment = _GARMENTS[label](vary)
    # Folds and stripes of the cloth: a wave down times a wave across, under the picture's light.
    garment *= (wave() * vary(0.35, 1)[:, None])[:, :, None]
    garment *= wave()[:, None, :]
    return garment
