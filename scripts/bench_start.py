"""Measure what it takes to start, and to run a sweep: CPU seconds of whole processes, including children.

    python scripts/bench_start.py --data DIRECTORY --turns 5 --jobs 9 36

The commands run in turns. The script prints medians, and ratios to a baseline of the same run: the imports that a
hand-written training program needs, and for sweeps, a hand-written program that trains and tests a linear model on all
ratios under `vmap` and draws the results. DIRECTORY has MNIST and Fashion-MNIST as prepared by TFDS; without it, the
built-in stand-ins are used. The first turn fills the caches of compiled programs and decoded records, and does not
count.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

STEPS, BATCH = 200, 64


def by_hand(arrays: str, num_jobs: int) -> None:
    """The sweep as a hand-written program."""
    import jax
    import jax.numpy as jnp
    import matplotlib.pyplot as plt
    import numpy as np
    import optax
    from flax import nnx

    data = np.load(arrays)
    images = [jnp.asarray(data[f"{name}_image"]) for name in ("a", "b")]
    labels = [jnp.asarray(data[f"{name}_label"], jnp.int32) for name in ("a", "b")]
    tests = [(data[f"{name}_test_image"], data[f"{name}_test_label"]) for name in ("a", "b")]
    graph, start = nnx.split(nnx.Linear(784, 20, rngs=nnx.Rngs(0)))
    adam = optax.adam(1e-3)

    def floats(image):
        return image.reshape(len(image), -1).astype(jnp.float32) / 255

    def loss_of(params, image, label):
        logits = nnx.merge(graph, params)(floats(image))
        return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()

    def train(share):
        def step(carry, key):
            params, state = carry
            of_a, record = jax.random.bernoulli(key, share, (BATCH,)), jax.random.uniform(key, (BATCH,))
            a, b = ((record * len(each)).astype(jnp.int32) for each in images)
            image = jnp.where(of_a[:, None, None, None], images[0][a], images[1][b])
            label = jnp.where(of_a, labels[0][a], labels[1][b] + 10)
            loss, gradient = jax.value_and_grad(loss_of)(params, image, label)
            change, state = adam.update(gradient, state)
            return (optax.apply_updates(params, change), state), loss

        keys = jax.random.split(jax.random.key(0), STEPS)
        (params, _), losses = jax.lax.scan(step, (start, adam.init(start)), keys)
        return params, losses

    shares = np.arange(1, num_jobs + 1) / (num_jobs + 1)
    params, losses = jax.jit(jax.vmap(train))(shares)

    def right(params, image, label):
        return (nnx.merge(graph, params)(floats(image)).argmax(-1) == label).mean()

    test = jax.jit(jax.vmap(right, (0, None, None)))
    accuracies = [np.asarray(test(params, image, label + 10 * i)) for i, (image, label) in enumerate(tests)]
    for accuracy in accuracies:
        plt.plot(shares, accuracy)
    plt.savefig("sweep.png")
    rows = zip(shares.tolist(), *(each.tolist() for each in accuracies), np.asarray(losses).tolist(), strict=True)
    Path("sweep.json").write_text(json.dumps([*rows]))


def save_arrays(path: Path, overrides: list[str]) -> None:
    """Save the records of both sources for the hand-written program."""
    import numpy as np

    import datamix

    arrays = {}
    for name, source in zip("ab", ("mnist", "fashion"), strict=True):
        for split, part in (("train", ""), ("test", "_test")):
            pipeline = datamix.load(
                f"source={source}", f"source.{source}.operators=[]", f"source.{source}.split={split}", "shuffle=none",
                "batch.size=100", "batch.remainder=keep", *overrides,
            )  # fmt: skip
            batches = list(pipeline)
            for leaf in ("image", "label"):
                arrays[f"{name}{part}_{leaf}"] = np.concatenate([batch[leaf] for batch in batches])
    np.savez(path, **arrays)


def cpu_seconds(command: list[str], directory: Path) -> float:
    """The CPU seconds of a command and all its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ran = subprocess.run(command, cwd=directory, capture_output=True, text=True)
    if ran.returncode:
        sys.exit(f"{' '.join(command)} has failed:\n{ran.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", help="the directory of prepared TFDS datasets")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--jobs", type=int, nargs="*", default=[9, 36], help="numbers of ratios of the sweeps")
    parser.add_argument("--by-hand", nargs=2, metavar=("ARRAYS", "JOBS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.by_hand:
        by_hand(args.by_hand[0], int(args.by_hand[1]))
        return
    data = ["data.stand_in=true"] if args.data is None else [f"data.dir={Path(args.data).absolute()}"]
    python = [sys.executable]
    datamix = [*python, "-m", "datamix", "source=mnist+fashion", *data]
    imports = [*python, "-c", "import jax, flax.nnx, matplotlib.pyplot"]
    commands = {"imports by hand": imports, "job=plan": [*datamix, "job=plan"], "job=preview": datamix}
    training = [*datamix, "job=train", "model=linear", f"train.steps={STEPS}"]
    commands["job=train"] = training
    baselines = dict.fromkeys(commands, "imports by hand")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        save_arrays(arrays := directory / "arrays.npz", data)
        for count in args.jobs:
            hand, basic = f"{count} ratios by hand", f"{count} ratios"
            swept = ",".join(f"{(i + 1) / (count + 1):.4f}" for i in range(count))
            commands[hand] = [*python, str(Path(__file__).absolute()), "--by-hand", str(arrays), str(count)]
            commands[basic] = [*training, "-m", f"mix.share.mnist={swept}"]
            commands[f"{count} ratios, vmap"] = [*commands[basic], "hydra/launcher=vmap"]
            drawn = ["-m", "hydra/sweeper=simplex", f"hydra.sweeper.num_jobs={count}", "hydra/launcher=vmap"]
            commands[f"{count} ratios, simplex"] = [*training, *drawn]
            baselines |= dict.fromkeys([hand, basic, f"{count} ratios, vmap", f"{count} ratios, simplex"], hand)
        seconds = {name: [] for name in commands}
        for turn in range(args.turns + 1):
            for name, command in commands.items():
                made = directory / f"{turn}-{len(seconds[name])}-{list(commands).index(name)}"
                made.mkdir()
                seconds[name].append(cpu_seconds(command, made))
    medians = {name: statistics.median(each[1:]) for name, each in seconds.items()}  # the first turn fills caches
    print(f"{'command':24}{'CPU s':>8}{'× baseline':>12}")
    for name, median in medians.items():
        print(f"{name:24}{median:8.2f}{median / medians[baselines[name]]:12.2f}")
    if len(args.jobs) > 1:
        least, most = min(args.jobs), max(args.jobs)
        for kind in ("", ", vmap"):
            further = (medians[f"{most} ratios{kind}"] - medians[f"{least} ratios{kind}"]) / (most - least)
            print(f"each further job{kind}: {further:.3f} CPU s")
    for count in args.jobs:
        print(
            f"{count} ratios, vmap to one by one: {medians[f'{count} ratios, vmap'] / medians[f'{count} ratios']:.2f}"
        )


if __name__ == "__main__":
    main()
