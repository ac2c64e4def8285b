"""How well the analysis of a sweep finds the best ratio: response surfaces with a known optimum, a sweep each.

python scripts/bench_answer.py [--surfaces 200] [--jobs 16] [--noise 0.005] [--seed 0]
"""

from __future__ import annotations

import argparse
import collections
import time

import numpy as np
from scipy.optimize import minimize

from datamix.sweeps.analysis import Evidence, analyse
from datamix.sweeps.simplex import PARTS, Simplex, draw

KINDS = ("mixing law", "power law", "own share", "bowl", "even", "flat")


def surface(kind, size, random):
    """Metrics of ratios, [..., size] -> [K, ...], and whether more is better."""
    cross = random.uniform(0, 0.3, (size, size)) * (random.random((size, size)) < 0.5)
    np.fill_diagonal(cross, 1)
    base, height = random.uniform(0.8, 0.97, size), random.uniform(0.2, 0.8, size)
    rate, least = random.uniform(1, 5, size) * size, random.uniform(0.3, 2, size)
    if kind == "mixing law":  # losses
        return lambda r: np.moveaxis(least + height * np.exp(-(r @ (cross * rate))), -1, 0), -1
    if kind == "power law":
        power, offset = random.uniform(0.2, 0.8, size), random.uniform(0.005, 0.05)
        return lambda r: np.moveaxis(least + 0.2 * height * (r @ cross * size + offset) ** -power, -1, 0), -1
    if kind == "own share":  # accuracies
        return lambda r: np.moveaxis(base - height * np.exp(-r * rate), -1, 0), 1
    if kind == "bowl":  # one metric of the whole mix
        centre, depth = random.dirichlet(np.full(size, 4.0)), random.uniform(0.1, 0.6)
        return lambda r: 0.9 - depth * ((r - centre) ** 2).sum(-1)[None], 1
    if kind == "even":
        return lambda r: np.moveaxis(base[0] - height[0] * np.exp(-r * rate[0]), -1, 0), 1
    return lambda r: np.moveaxis(np.broadcast_to(base, r.shape), -1, 0), 1


def optimum(goal, size, random, least):
    """The best ratio by many starts of SLSQP on a smoothed, then on the true goal, and random polish."""
    tried = random.dirichlet(np.ones(size), 2000) * (1 - size * least) + least
    best = tried[goal(tried).argmax()]
    width = 0.2
    for _ in range(600):
        step = random.normal(size=(256, size)) * width * random.random((256, 1))
        near = np.clip(best + step - step.mean(1, keepdims=True), least, 1)
        near /= near.sum(1, keepdims=True)
        values = goal(near)
        if values.max() > goal(best[None])[0]:
            best = near[values.argmax()]
        else:
            width *= 0.95
    return best


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("surfaces", 200), ("jobs", 16), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--noise", type=float, default=0.005)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2, 3, 8])
    parser.add_argument("--strength", type=float, default=1.0)
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    found, covered, right, models = (collections.defaultdict(list) for _ in range(4))
    took = []
    for i in range(args.surfaces):
        random = np.random.default_rng([args.seed, i])
        size, kind, worst = args.sizes[i % len(args.sizes)], KINDS[(i // 3) % len(KINDS)], (i // 18) % 2
        metrics, sign = surface(kind, size, random)
        combine = (lambda m: sign * (sign * m).min(0)) if worst else (lambda m: m.mean(0))

        def value(r):
            return sign * combine(metrics(r))

        least = 0.01
        names = [f"s{j}" for j in range(size)]
        points = (
            np.array(
                draw(
                    Simplex(num_jobs=args.jobs, min=least, seed=i, strength=args.strength),
                    names,
                    dict.fromkeys(names, PARTS),
                )
            )
            / PARTS
        )
        seeds = 1 if i % 2 else 2
        shares = np.repeat(points[: args.jobs // seeds], seeds, 0) if size < 8 else points
        values = metrics(shares)
        values = values + args.noise * random.normal(size=values.shape)
        own = {k: (None if kind == "bowl" else k) for k in range(len(values))}
        begun = time.perf_counter()
        answer = analyse(
            Evidence(names=names, shares=shares, metrics=dict(enumerate(values)), own=own, combine=combine, sign=sign)
        )
        took.append(time.perf_counter() - begun)
        best = optimum(value, size, random, least)
        top, mine, equal = value(np.stack([best, answer.best, np.full(size, 1 / size)]))
        # The deviation of the goal of one job over seeds.
        near = metrics(best[None]) + args.noise * random.normal(size=(len(values), 4000))
        deviation = combine(near).std()
        ok = mine >= top - 0.01 * abs(top)
        inside = (answer.interval[:, 0] - 1e-3 <= best) & (best <= answer.interval[:, 1] + 1e-3)
        key = f"{size} sources", kind, ("mean", "worst")[worst], "all"
        gains = (top - equal) / deviation
        for each in key:
            found[each].append(ok)
            models[each].append(answer.model)
            if gains >= 2:
                covered[each].extend(inside)
                right[f"{each} (clear)"].append(answer.verdict in ("clear", "edge"))
            else:
                right[f"{each} (none)"].append(answer.verdict in ("flat", "noise"))
        if args.verbose and not (ok and inside.all() and (answer.verdict in ("clear", "edge")) == (gains >= 2)):
            print(
                i,
                key[:3],
                answer.model,
                {k: round(v, 4) for k, v in answer.errors.items()},
                f"noise × {answer.noise / deviation:.1f}",
                f"top {top:.3f}",
                answer.verdict,
                f"gain {gains:.1f} σ, told {sign * answer.gain / deviation:.1f}, short {(top - mine) / abs(top):.4f}",
                "within",
                inside.sum(),
                "of",
                size,
            )
    for each in found:
        print(
            f"{each:12} within 1 %: {np.mean(found[each]):.2f}  covered {np.mean(covered[each] or [np.nan]):.2f} ({len(covered[each])})  {dict(collections.Counter(models[each]))}"
        )
    for each in right:
        print(f"{each:22} right verdict {np.mean(right[each]):.2f} of {len(right[each])}")
    print(f"seconds an analysis: median {np.median(took):.2f}, largest {max(took):.2f}")


if __name__ == "__main__":
    main()
