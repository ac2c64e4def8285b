"""Measure how well the analysis of a sweep finds the best ratio, on response surfaces with a known optimum.

    python scripts/bench_answer.py --surfaces 216 --jobs 16

There is one sweep per surface, and there are six kinds of surface: losses by the mixing law and by a power law, both
with transfer between sources; accuracies that depend on a source's own share; one metric of the whole mix; accuracies
for which equal shares are best; no effect at all. Each has 2, 3 and 8 sources, the mean and the worst source as the
goal, and one seed or two. The script prints how often the value at the predicted ratio is within 1 % of the best, how
many of the true best shares lie inside their intervals of 90 % if the best is two standard deviations of a job better
than equal shares, and how often the verdict is right there (clear, edge) and elsewhere (flat, noise). `--others` uses
surfaces that do not have the form of any model.
"""

from __future__ import annotations

import argparse
import collections
import time

import numpy as np

from datamix.sweeps.analysis import Evidence, analyse
from datamix.sweeps.simplex import PARTS, Simplex, draw

KINDS = ("mixing law", "power law", "own share", "bowl", "even", "flat")
OTHERS = ("Hill", "sigmoid", "log share", "cubic bowl", "random", "even Hill", "flat")
LEAST = 0.01  # share of a source


class Surface:
    """Metrics as a function of ratios, and the goal computed from them."""

    def __init__(self, kind, size, worst, random):
        self.kind, self.size, self.worst = kind, size, worst
        self.sign = -1 if kind in ("mixing law", "power law") else 1
        transfer = random.uniform(0, 0.3, (size, size)) * (random.random((size, size)) < 0.5)
        np.fill_diagonal(transfer, 1)
        top, height = random.uniform(0.8, 0.97, size), random.uniform(0.2, 0.8, size)
        rate, floor = random.uniform(1, 5, size) * size, random.uniform(0.3, 2, size)
        power, offset = random.uniform(0.2, 0.8, size), random.uniform(0.005, 0.05)
        centre, depth = random.dirichlet(np.full(size, 4.0)), random.uniform(0.1, 0.6)
        self.metrics = {
            "mixing law": lambda r: floor + height * np.exp(-(r @ (transfer * rate))),
            "power law": lambda r: floor + 0.2 * height * (r @ transfer * size + offset) ** -power,
            "own share": lambda r: top - height * np.exp(-r * rate),
            "bowl": lambda r: 0.9 - depth * ((r - centre) ** 2).sum(-1, keepdims=True),
            "even": lambda r: top[0] - height[0] * np.exp(-r * rate[0]),
            "flat": lambda r: np.broadcast_to(top, r.shape),
        }[kind]

    def combine(self, metrics):
        """The goal of metrics [K, ...]."""
        return self.sign * (self.sign * metrics).min(0) if self.worst else metrics.mean(0)

    def goal(self, ratios):
        """The goal of ratios; larger is better."""
        return self.sign * self.combine(np.moveaxis(self.metrics(ratios), -1, 0))

    def best(self, random):
        """The best ratio, by a random search whose steps shrink."""
        tried = random.dirichlet(np.ones(self.size), 2000) * (1 - self.size * LEAST) + LEAST
        values = self.goal(tried)
        best, reached, width = tried[values.argmax()], values.max(), 0.2
        while width > 1e-6:
            step = random.normal(size=(256, self.size)) * width * random.random((256, 1))
            near = np.clip(best + step - step.mean(1, keepdims=True), LEAST, 1)
            near /= near.sum(1, keepdims=True)
            values = self.goal(near)
            if values.max() > reached + 1e-9:  # in a batch of ratios, the last digits of a goal may differ
                best, reached = near[values.argmax()], values.max()
            else:
                width *= 0.95
        return best


class Other(Surface):
    """A surface that does not have the form of any model that is fitted."""

    def __init__(self, kind, size, worst, random):
        self.kind, self.size, self.worst = kind, size, worst
        self.sign = -1 if kind == "log share" else 1
        transfer = random.uniform(0, 0.3, (size, size)) * (random.random((size, size)) < 0.5)
        np.fill_diagonal(transfer, 1)
        top, half = random.uniform(0.75, 0.98, size), random.uniform(0.1, 0.6, size) / size
        middle, slope = np.log(random.uniform(0.3, 1, size) / size), random.uniform(1, 2.5, size)
        base, fall = random.uniform(1, 3, size), random.uniform(0.03, 0.15, size)
        centre, depth = random.dirichlet(np.full(size, 4.0)), random.uniform(0.1, 0.6) * random.uniform(0.4, 1.6, size)
        hills, height = random.dirichlet(np.ones(size), 12), random.normal(size=(12, 1)) * 0.08
        self.metrics = {
            "Hill": lambda r: top * (r @ transfer) / (r @ transfer + half),
            "sigmoid": lambda r: top / (1 + np.exp(-(np.log(r + 1e-3) - middle) * slope)),
            "log share": lambda r: base - fall * np.log(r @ transfer + 0.01),
            "cubic bowl": lambda r: 0.9 - (depth * np.abs(r - centre) ** 1.5).sum(-1, keepdims=True),
            "random": lambda r: 0.8 + np.exp(-((r[..., None, :] - hills) ** 2).sum(-1) / 0.36) @ height,
            "even Hill": lambda r: top[0] * r / (r + half[0]),
            "flat": lambda r: np.broadcast_to(top, r.shape),
        }[kind]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("surfaces", 216), ("jobs", 16), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--noise", type=float, default=0.005)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2, 3, 8])
    parser.add_argument("--others", action="store_true")
    args = parser.parse_args()
    family, kinds = (Other, OTHERS) if args.others else (Surface, KINDS)
    near, inside, right, models = (collections.defaultdict(list) for _ in range(4))
    seconds = []
    for i in range(args.surfaces):
        random = np.random.default_rng([args.seed, i])
        place, size = divmod(i, len(args.sizes))[0], args.sizes[i % len(args.sizes)]
        surface = family(kinds[place % len(kinds)], size, bool(place // len(kinds) % 2), random)
        seeds = 2 if i % 2 == 0 and size < 8 else 1
        names = [f"s{j}" for j in range(size)]
        points = draw(Simplex(num_jobs=args.jobs // seeds, min=LEAST, seed=i), names, dict.fromkeys(names, PARTS))
        shares = np.repeat(np.array(points) / PARTS, seeds, 0)
        metrics = surface.metrics(shares).T
        metrics = metrics + args.noise * random.normal(size=metrics.shape)
        evidence = Evidence(
            names=names,
            shares=shares,
            metrics=dict(enumerate(metrics)),
            source_of={k: k if len(metrics) == size else None for k in range(len(metrics))},
            combine=surface.combine,
            sign=surface.sign,
        )
        begun = time.perf_counter()
        answer = analyse(evidence)
        seconds.append(time.perf_counter() - begun)
        best = surface.best(random)
        top, reached, equal = surface.goal(np.stack([best, answer.best, np.full(size, 1 / size)]))
        jobs = surface.metrics(best)[:, None] + args.noise * random.normal(size=(len(metrics), 4000))
        clear = top - equal >= 2 * surface.combine(jobs).std()
        for group in ("all", f"{size} sources", surface.kind, "worst" if surface.worst else "mean"):
            near[group].append(reached >= top - 0.01 * abs(top))
            models[group].append(answer.model)
            if clear:
                inside[group].extend((answer.interval[:, 0] <= best) & (best <= answer.interval[:, 1]))
            right[group, clear].append((answer.verdict in ("clear", "edge")) == clear)
    print(f"{'':12} within 1 %   shares inside   verdict right, clear   elsewhere   models")
    for group in near:
        means = [each or [np.nan] for each in (near[group], inside[group], right[group, True], right[group, False])]
        numbers = "".join(f"{np.mean(each):>9.2f} ({len(each):>3})" for each in means)
        print(f"{group:10}{numbers}  {dict(collections.Counter(models[group]).most_common())}")
    print(f"seconds an analysis: median {np.median(seconds):.2f}, largest {max(seconds):.2f}")


if __name__ == "__main__":
    main()
