"""The digits 0 to 9, a stand-in for MNIST: skeletons in two handwritings ("hands"), stroked with a round pen."""

from __future__ import annotations

import functools

import numpy as np

from datamix.sources.synthetic.procedural import GRID, Procedural, Vary


def digits(*, split: str = "train", seed: int = 0, cache_dir: str | None = None) -> Procedural:
    """The digits 0 to 9, light strokes on black.

    Args:
      split: The records to read, in TFDS's syntax; train holds 20,000 and test 4,000.
      seed: The seed of the drawing; another seed draws other records.
      cache_dir: The directory of the cache; by default $XDG_CACHE_HOME/datamix, else ~/.cache/datamix.

    >>> source = digits(split="train[:100]")
    >>> source.num_records, source.class_names[:3], str(source.spec["image"])
    (100, ('0', '1', '2'), 'uint8 [28, 28, 1]')
    >>> source.read()["label"][:8]
    array([9, 5, 5, 7, 9, 8, 8, 6])
    """
    names = tuple(str(digit) for digit in range(len(_HANDS)))
    return Procedural("digits", names, _draw_digit, grain=0.05, split=split, seed=seed, cache_dir=cache_dir)


# Each digit in two hands; a record is written somewhere between the two. Bars separate strokes; a stroke is a smooth
# curve through points "xy" on a grid of ten by ten, x rightwards and y downwards. A stroke that starts where another
# ends makes a corner; one that has no length in one hand, such as the bar of a 7, grows towards the other.
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


def _draw_digit(digit: int, vary: Vary) -> np.ndarray:
    def uniform(low: float, high: float) -> np.ndarray:
        return vary(low, high)[:, None]

    first, second = _dabs(digit)[:, :, None]
    x, y, length = first + uniform(0, 1) * (second - first)  # [records, dabs] each
    # An unsteady hand bends the paper, not the stroke, so that strokes which meet still do.
    x = x + uniform(-0.1, 0.1) * np.sin(uniform(3, 7) * y + uniform(0, 6.3))
    y = y + uniform(-0.1, 0.1) * np.sin(uniform(3, 7) * x + uniform(0, 6.3))
    rotation, slant = uniform(-0.25, 0.25), uniform(-0.15, 0.4)
    x, y = uniform(9, 16) * x, uniform(15, 20) * y
    x, y = x - (rotation + slant) * y + uniform(11.5, 15.5), y + rotation * x + uniform(11.5, 15.5)
    # A dab of a round pen is a bell in x times a bell in y: the sum over dabs is one matrix product per record.
    pen = uniform(0.75, 1.35)
    bells = (GRID / pen)[:, None] - (np.stack([x, y]) / pen)[..., None]
    np.square(bells, out=bells)
    bells *= -0.5
    np.exp(np.maximum(bells, -30, out=bells), out=bells)  # floored: subnormal numbers are slow to multiply
    across, down = bells
    down *= (uniform(8, 12) * length / pen)[..., None]
    ink: np.ndarray = down.swapaxes(1, 2) @ across
    np.minimum(ink, 1, out=ink)
    ink *= uniform(0.75, 1)[..., None]
    return ink
