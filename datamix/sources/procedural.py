"""Two datasets drawn by code: `digits`, a look-alike of MNIST, and `garments`, one of Fashion-MNIST.

A record is drawn from a row of uniform numbers that depends on the seed, the source, the split and the record's place
in the split alone, so a slice holds the same records as the whole. From top to bottom:

    digits, garments    the two sources
    Procedural          what they share: labels, rows of uniform numbers, grain, blocks
    _HANDS              the skeletons of the ten digits; `_draw_digit` strokes them with a round pen
    _GARMENTS           the ten garments, a function each, which fills spans of a `_View` from the front or the side
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from datamix.sources.base import Arrays, LeafSpec, Spec
from datamix.sources.splits import resolve_split

_SIZES = {"train": 20_000, "test": 4_000}
_SIDE = 28
_GRID = np.arange(_SIDE, dtype=np.float32)
_CENTRE = (_SIDE - 1) / 2
_NUM_UNIFORMS = 40  # per record: more than any class takes, so that one can take another and leave the rest as it is
_BLOCK_RECORDS = 128  # a block's pictures, 400 kB in float32, stay in the processor's cache


def digits(*, split: str = "train", seed: int = 0) -> Procedural:
    """The digits 0 to 9, light strokes on black.

    Args:
      split: records to read, in TFDS's syntax; train holds 20,000 and test 4,000.
      seed: another seed draws other records.

    Raises:
      ConfigError: the split's syntax is not TFDS's, or there is no such split.

    >>> source = digits(split="train[:100]")
    >>> source.num_records, source.class_names[:3], str(source.spec["image"])
    (100, ('0', '1', '2'), 'uint8 [28, 28, 1]')
    >>> source.read()["label"][:8]
    array([9, 5, 5, 7, 9, 8, 8, 6])
    """
    class_names = tuple(str(digit) for digit in range(len(_HANDS)))
    return Procedural(name="digits", class_names=class_names, draw=_draw_digit, grain=0.05, split=split, seed=seed)


def garments(*, split: str = "train", seed: int = 0) -> Procedural:
    """Ten garments, from T-shirt/top to Ankle boot, light on black.

    Args:
      split: records to read, in TFDS's syntax; train holds 20,000 and test 4,000.
      seed: another seed draws other records.

    Raises:
      ConfigError: the split's syntax is not TFDS's, or there is no such split.

    >>> source = garments(split="test[:100]")
    >>> source.num_records, source.class_names[:3], source.class_names[-1]
    (100, ('T-shirt/top', 'Trouser', 'Pullover'), 'Ankle boot')
    >>> source.read()["image"].shape
    (100, 28, 28, 1)
    """
    return Procedural(
        name="garments", class_names=tuple(_GARMENTS), draw=_draw_garment, grain=0.08, split=split, seed=seed
    )


class _Vary:
    """Hands out the columns of a table of uniforms, one a call, so that a drawing names each of its ranges in place."""

    def __init__(self, uniforms: np.ndarray) -> None:
        self._columns: Iterator[np.ndarray] = iter(uniforms.T)

    def __call__(self, low: float, high: float) -> np.ndarray:
        """A number from low to high for each record, float32, shape [records]."""
        return next(self._columns) * np.float32(high - low) + np.float32(low)

    def chance(self, share: float) -> np.ndarray:
        """1 for this share of the records, 0 for the others, float32, shape [records]."""
        return (self(0, 1) < share).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Procedural:
    """A source whose records are drawn when they are read.

    Attributes:
      name: of the source; the pictures depend on it.
      class_names: name of each label, by label.
      draw: from a label, and the numbers to vary it by, to pictures: float32, shape [records, 28, 28], black at 0 and
        white at 1.
      grain: noise of the roughest picture, as a share of its light.
      split: records to read, in TFDS's syntax.
      seed: another seed draws other records.

    Raises:
      ConfigError: the split's syntax is not TFDS's, or there is no such split.
    """

    name: str
    class_names: tuple[str, ...]
    draw: Callable[[int, _Vary], np.ndarray]
    grain: float
    split: str
    seed: int

    def __post_init__(self) -> None:
        self._ranges()

    @property
    def provenance(self) -> str:
        """Where the records come from."""
        return "procedural"

    @property
    def num_records(self) -> int:
        """How many records the split holds."""
        return sum(stop - start for _, start, stop in self._ranges())

    @property
    def spec(self) -> Spec:
        """Shape and dtype of each leaf of one record."""
        return {"image": LeafSpec((_SIDE, _SIDE, 1), "uint8"), "label": LeafSpec((), "int64")}

    def read(self) -> Arrays:
        """Draw all records: image, uint8 [num_records, 28, 28, 1], and label, int64 [num_records]."""
        image = np.empty((self.num_records, _SIDE, _SIDE, 1), np.uint8)
        label = np.empty(self.num_records, np.int64)
        done = 0
        for split, start, stop in self._ranges():
            part = slice(done, done + stop - start)
            order = self._generator(split, "label").permutation(_SIZES[split])
            label[part] = order[start:stop] % len(self.class_names)
            # Filled row by row, so a shorter table is the head of a longer one: a record's row is its own.
            uniforms = self._generator(split, "image").random((stop, _NUM_UNIFORMS), np.float32)[start:]
            self._draw_all(image[part, :, :, 0], label[part], uniforms)
            done = part.stop
        return {"image": image, "label": label}

    def _ranges(self) -> list[tuple[str, int, int]]:
        return resolve_split(self.split, _SIZES, where="split")

    def _generator(self, split: str, purpose: str) -> np.random.Generator:
        digest = hashlib.sha256(f"{self.seed}/{self.name}/{split}/{purpose}".encode()).digest()
        return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))

    def _draw_all(self, image: np.ndarray, label: np.ndarray, uniforms: np.ndarray) -> None:
        for class_id in range(len(self.class_names)):
            records = np.flatnonzero(label == class_id)
            for block in np.split(records, range(_BLOCK_RECORDS, len(records), _BLOCK_RECORDS)):
                vary = _Vary(uniforms[block])
                picture = self.draw(class_id, vary)
                picture *= 255 * _grain(vary, self.grain)
                image[block] = np.clip(picture, 0, 255, out=picture)


@functools.cache
def _grain_sheet() -> np.ndarray:
    # One sheet for all: a picture's grain is a window on it at a place of its own, far cheaper than noise of its own.
    noise = np.random.Generator(np.random.Philox(key=28)).standard_normal(1 << 16, np.float32)
    return np.lib.stride_tricks.sliding_window_view(np.clip(noise, -3, 3), _SIDE * _SIDE)


def _grain(vary: _Vary, roughest: float) -> np.ndarray:
    """Factors around 1, float32, shape [records, 28, 28]."""
    sheet = _grain_sheet()
    grain: np.ndarray = sheet[vary(0, len(sheet) - 1).astype(np.int64)].reshape(-1, _SIDE, _SIDE)
    grain *= vary(0.01, roughest)[:, None, None]
    grain += 1
    return grain


# Digits ---------------------------------------------------------------------------------------------------------------

# Each digit in two hands; a record is written somewhere between the two. Strokes are parted by bars; a stroke is a
# smooth curve through points "xy" on a grid of ten by ten, x rightwards and y downwards. A stroke that starts where
# another ends makes a corner; one of no length in one hand, as the bar of a 7, grows towards the other.
_HANDS = (
    ("50 21 04 17 49 78 95 82 50", "60 30 13 16 39 68 86 83 50"),
    ("50 54 49 | 50 50 | 49 49", "50 54 59 | 50 23 | 29 89"),
    ("02 20 60 83 65 37 09 | 09 39 69 99", "12 30 70 82 75 48 18 | 18 06 47 99"),
    ("11 40 80 83 54 34 | 34 75 97 78 49 08", "10 50 90 72 53 44 | 44 75 87 69 39 18"),
    ("20 13 06 | 06 46 96 | 71 75 79", "60 33 06 | 06 46 96 | 60 64 69"),
    ("80 50 20 | 20 22 14 | 14 44 85 87 59 08", "90 60 30 | 30 32 23 | 23 64 95 87 49 18"),
    ("60 33 05 17 49 88 85 54 25 07", "80 43 15 18 49 78 86 55 26 18"),
    ("00 50 90 | 90 64 49 | 64 64", "11 50 80 | 80 54 39 | 35 85"),
    ("81 50 11 23 75 98 49 08 15 73 81", "70 40 22 34 65 77 49 17 25 63 70"),
    ("82 50 11 13 45 73 82 | 82 85 69", "91 60 21 13 44 83 91 | 91 87 39"),
)


@functools.cache
def _dabs(digit: int) -> np.ndarray:
    """The pen's dabs: x and y, within ±0.5, and the length that each inks, float32, shape [2 hands, 3, dabs]."""
    dabs = []
    for stroke in zip(*(hand.split("|") for hand in _HANDS[digit]), strict=True):
        # Shape [points, 2 hands, 2]: dabs lie at the same places along both hands' curves, so that hands can be mixed.
        points = np.stack([[(int(x), int(y)) for x, y in hand.split()] for hand in stroke], axis=1) / 9 - 0.5
        points = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
        for p, a, b, q in zip(points, points[1:], points[2:], points[3:], strict=False):
            t = np.linspace(0, 1, 1 + int(np.ceil(12 * np.abs(b - a).max())))[:, None, None]
            # The Catmull-Rom curve from a to b.
            curve = a + t / 2 * (b - p + t * (2 * p - 5 * a + 4 * b - q + t * (3 * (a - b) + q - p)))
            length = np.linalg.norm(np.diff(curve, axis=0), axis=-1, keepdims=True)
            dabs.append(np.concatenate([(curve[1:] + curve[:-1]) / 2, length], axis=-1))
    return np.concatenate(dabs).transpose(1, 2, 0).astype(np.float32)


def _draw_digit(digit: int, vary: _Vary) -> np.ndarray:
    def each(low: float, high: float) -> np.ndarray:
        return vary(low, high)[:, None]

    one, other = _dabs(digit)[:, :, None]
    x, y, length = one + each(0, 1) * (other - one)  # [records, dabs] each
    # An unsteady hand bends the paper, not the stroke, so that strokes which meet still do.
    x = x + each(-0.1, 0.1) * np.sin(each(3, 7) * y + each(0, 6.3))
    y = y + each(-0.1, 0.1) * np.sin(each(3, 7) * x + each(0, 6.3))
    turn, slant = each(-0.25, 0.25), each(-0.15, 0.4)
    x, y = each(9, 16) * x, each(15, 20) * y
    x, y = x - (turn + slant) * y + each(11.5, 15.5), y + turn * x + each(11.5, 15.5)
    # A dab of a round pen is a bell in x times a bell in y: the sum over dabs is one matrix product a record.
    pen = each(0.75, 1.35)
    bells = (_GRID / pen)[:, None] - (np.stack([x, y]) / pen)[..., None]
    np.square(bells, out=bells)
    bells *= -0.5
    np.exp(np.maximum(bells, -30, out=bells), out=bells)  # floored: subnormal numbers are slow to multiply
    across, down = bells
    down *= (each(8, 12) * length / pen)[..., None]
    ink: np.ndarray = down.swapaxes(1, 2) @ across
    np.minimum(ink, 1, out=ink)
    ink *= each(0.75, 1)[..., None]
    return ink


# Garments -------------------------------------------------------------------------------------------------------------

_Number = float | np.ndarray  # of shape [records]
_Knot = tuple[_Number, _Number] | tuple[_Number, _Number, _Number]


@dataclass(frozen=True)
class _View:
    """Pictures' own coordinates, in nominal pixels: garments are drawn at one size, upright and centred.

    Attributes:
      along: the way a garment's outline is told, from top to bottom or from toe to heel, shape [records, 28].
      aside: how far a pixel lies from the garment's axis, or from the top, shape [records, 28 (along), 28].
    """

    along: np.ndarray
    aside: np.ndarray

    @classmethod
    def front(cls, vary: _Vary) -> _View:
        """Rows from the top, and distances from an upright axis: what is told of one side appears on both."""
        along = (_GRID - _CENTRE + vary(-1.2, 1.2)[:, None]) * vary(0.98, 1.15)[:, None] + _CENTRE
        axis = _CENTRE + vary(-1, 1)[:, None] + vary(-0.06, 0.06)[:, None] * (along - _CENTRE)
        return cls(along, np.abs(_GRID - axis[:, :, None]) * vary(0.95, 1.15)[:, None, None])

    @classmethod
    def side(cls, vary: _Vary) -> _View:
        """Columns from the toe, at the left, to the heel, and rows from the top."""
        along = (_GRID - _CENTRE + vary(-1, 1)[:, None]) * vary(0.98, 1.15)[:, None] + _CENTRE
        down = vary(-1.5, 2.5)[:, None] - vary(-0.06, 0.06)[:, None] * (along - _CENTRE)
        return cls(along, (_GRID + down[:, :, None]) * vary(0.95, 1.1)[:, None, None])

    def fill(self, *knots: _Knot) -> np.ndarray:
        """How much of each pixel a shape covers, 0 to 1, shape of `aside`.

        Args:
          knots: (along, far edge) or (along, near edge, far edge), in growing order along; edges are straight between
            knots, and without a near edge the shape is filled from the axis or the top.
        """
        table = np.empty((len(knots[0]), len(knots), len(self.along), 1), np.float32)
        for index, knot in enumerate(knots):
            for number, row in zip(knot, table[:, index, :, 0], strict=True):
                row[:] = number
        at, *edges = table
        # How far each line has gone along each stretch between knots: an edge is its start plus the stretches' rises.
        gone = np.clip((self.along - at[:-1]) / np.maximum(np.diff(at, axis=0), 1e-3), 0, 1)
        *near, far = (edge[0] + np.sum(gone * np.diff(edge, axis=0), axis=0) for edge in edges)
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
    """Take this share of the light away where the mark is, in place; a strength below 0 adds light."""
    light = _times(mark, -strength)
    light += 1
    tone *= light


def _join(*parts: np.ndarray) -> np.ndarray:
    whole: np.ndarray = functools.reduce(np.maximum, parts)
    return whole


def _torso(view: _View, vary: _Vary, hem: np.ndarray, chest: np.ndarray, neck: np.ndarray) -> np.ndarray:
    torso = view.fill((3, neck + 1.5), (5.5, 8), (9, chest), (hem, chest + vary(-0.5, 1)))
    depth = vary(4, 7)
    _darken(torso, view.fill((2, neck), (depth - 1, neck * vary(0.3, 0.9)), (depth, 0)), 0.85)
    return torso


def _sleeves(view: _View, vary: _Vary, long: _Number) -> np.ndarray:
    """Both sleeves, in a tone of their own: short where `long` is 0 and down to the hem where it is 1."""

    def cut(short: _Number, full: _Number) -> _Number:
        return short + (full - short) * long

    wide, elbow = vary(11.5, 13.5), cut(vary(8, 11), 8.5)
    cuff, end = elbow + cut(2, vary(13, 16)), cut(wide - 1.5, vary(11.5, 13.3))
    sleeves = view.fill((4, 5, 6.5), (elbow, 6, cut(wide, 10)), (cuff, end - 2.8, end))
    return _times(sleeves, vary(0.75, 1))


def _t_shirt(vary: _Vary) -> np.ndarray:
    view = _View.front(vary)
    torso = _torso(view, vary, hem=vary(23, 26), chest=vary(6.2, 8), neck=vary(2, 4.5))
    _darken(torso, view.fill((10, 3), (16, 3)), vary(-0.6, 0.6) * vary.chance(0.5))  # a print
    return _join(torso, _sleeves(view, vary, vary(0, 0.3)))


def _trouser(vary: _Vary) -> np.ndarray:
    view = _View.front(vary)
    waist, hips, crotch, gap, ankle = vary(4, 5.5), vary(5.2, 7), vary(7, 12), vary(0.7, 3), vary(2.8, 4.2)
    hem = vary(25.5, 27.5)
    legs = view.fill((1, -1, waist), (crotch, -1, hips), (crotch + 1, 0.2, hips), (hem, gap, gap + ankle))
    _darken(legs, view.fill((0, 9), (2.2, 9)), vary(0, 0.4))  # the waistband
    _darken(legs, view.fill((3, 0.3), (crotch, 0.3)), vary(0, 0.5))  # the fly
    return legs


def _pullover(vary: _Vary) -> np.ndarray:
    view = _View.front(vary)
    hem, ribs, chest = vary(23.5, 26.5), vary(0.05, 0.4), vary(7, 13)
    torso = _torso(view, vary, hem=hem, chest=vary(6.4, 8.2), neck=vary(1.8, 3.8))
    _darken(torso, view.fill((hem - 2.5, 14), (hem + 1, 14)), ribs)
    _darken(torso, view.fill((chest, 14), (chest + 3, 14)), vary(-0.4, 0.4) * vary.chance(0.5))
    return _join(torso, _sleeves(view, vary, vary(0.8, 1)))


def _dress(vary: _Vary) -> np.ndarray:
    view = _View.front(vary)
    bust, waist, flare, middle = vary(3.8, 5.2), vary(3, 4.5), vary(4.5, 9.5), vary(9, 13)
    dress = view.fill((1, bust - 1), (6, bust), (middle, waist), (vary(24, 27), flare))
    _darken(dress, view.fill((0, bust - 2), (vary(3, 6), 0.2)), 0.9)  # the neckline, between straps
    _darken(dress, view.fill((middle - 1, 9), (middle + 0.5, 9)), vary(-0.3, 0.5))  # the belt
    sleeve = vary(0, 4) * vary.chance(0.6)
    return _join(dress, view.fill((1.5, 2, bust - 1), (5 + sleeve * 1.5, bust - 1, bust + sleeve)))


def _coat(vary: _Vary) -> np.ndarray:
    view = _View.front(vary)
    hem, lapel, pocket = vary(25, 27.5), vary(7, 15), vary(15, 19)
    torso = _torso(view, vary, hem=hem, chest=vary(6.8, 8.6), neck=vary(1.8, 3))
    _darken(torso, view.fill((3, 1.5, 3), (lapel, 0, 0.5)), vary(0.1, 0.6))
    _darken(torso, view.fill((5, 0.4), (hem, 0.4)), vary(0.4, 0.95))  # the opening
    _darken(torso, view.fill((pocket, 2.5, 5.5), (pocket + 1, 2.5, 5.5)), vary(0, 0.6))
    return _join(torso, _sleeves(view, vary, vary(0.85, 1)))


def _sandal(vary: _Vary) -> np.ndarray:
    view = _View.side(vary)
    heel, thick, wide, rise = vary(0, 5), vary(1, 2.2), vary(1.3, 2.4), vary(3, 5.5)
    bed = 22 - heel  # of the foot, at the heel
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


def _shirt(vary: _Vary) -> np.ndarray:
    view = _View.front(vary)
    hem, step = vary(23.5, 26.5), vary(2.6, 3.6)[:, None]
    torso = _torso(view, vary, hem=hem, chest=vary(5.8, 7.6), neck=vary(1.5, 3))
    _darken(torso, view.fill((2, 1, 4), (5.5, 1.5, 3)), vary(-0.6, -0.1))  # the collar
    _darken(torso, view.fill((5, 0.8, 1.6), (hem, 0.8, 1.6)), vary(0, 0.4))  # the placket
    buttons = view.fill((6, 0.5), (hem, 0.5)) * (view.along % step < 1.2)[:, :, None]
    _darken(torso, buttons, vary(0.3, 0.9))
    return _join(torso, _sleeves(view, vary, vary(0, 0.2) + 0.8 * vary.chance(0.7)))


def _sneaker(vary: _Vary) -> np.ndarray:
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


def _bag(vary: _Vary) -> np.ndarray:
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


def _ankle_boot(vary: _Vary) -> np.ndarray:
    view = _View.side(vary)
    top, toe, front, heel = vary(4, 9), vary(17, 20), vary(10, 14), vary(0.5, 3)
    shaft = (front, 14, 23), (front + 1.5, top, 23), (25, top - 0.5, 22)
    boot = view.fill((1, 21, 23), (3, toe, 23), (7, toe - 1.5, 23), *shaft, (26, 16, 22))
    _darken(boot, view.fill((front + 5, top, 15), (front + 6.5, top, 15)), vary(-0.3, 0.6))  # the elastic
    sole = view.fill((1, 21.5, 23), (26, 21.5, 23))
    _darken(boot, sole, vary(0, 0.6))
    return _join(boot, view.fill((vary(17, 20), 22, 22.5 + heel), (26, 22, 22.5 + heel)) * 0.8).swapaxes(1, 2)


_GARMENTS: dict[str, Callable[[_Vary], np.ndarray]] = {
    "T-shirt/top": _t_shirt,
    "Trouser": _trouser,
    "Pullover": _pullover,
    "Dress": _dress,
    "Coat": _coat,
    "Sandal": _sandal,
    "Shirt": _shirt,
    "Sneaker": _sneaker,
    "Bag": _bag,
    "Ankle boot": _ankle_boot,
}


def _draw_garment(label: int, vary: _Vary) -> np.ndarray:
    def wave() -> np.ndarray:
        light: np.ndarray = vary(0, 0.12)[:, None] * np.sin(vary(0.2, 1.6)[:, None] * _GRID + vary(0, 6.3)[:, None])
        return light + 1

    garment = list(_GARMENTS.values())[label](vary)
    # Folds and stripes of the cloth: a wave down times a wave across, under the picture's light.
    garment *= (wave() * vary(0.35, 1)[:, None])[:, :, None]
    garment *= wave()[:, None, :]
    return garment
