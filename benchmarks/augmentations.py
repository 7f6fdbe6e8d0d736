"""What an augmentation costs: each with its default options on a batch, jitted, beside a change of
sign.

    python -m benchmarks.augmentations
    python -m benchmarks.augmentations --rate 500 --batch 32

`ratio` is to the change of sign, the least that it takes to read and write a batch.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp

from benchmarks import report
from ecg_jax.data import augment


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=10.0, help="of a record")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    T = round(args.seconds * args.rate)
    ecg = jax.random.normal(jax.random.key(0), (args.batch, T, 12))
    mask = jnp.ones((args.batch, 12), bool)
    # At 100 Hz no mains hum can be held.
    names = [name for name in augment.NAMES if name != "hum" or args.rate > 100]
    runs = {"sign": jax.jit(lambda key, ecg, mask: (-ecg, mask))}
    for name in names:
        chain = augment.compose([{"name": name}], args.rate)
        runs[name] = jax.jit(lambda key, ecg, mask, chain=chain: chain(key, ecg, mask))
    times: dict[str, list[float]] = {name: [] for name in runs}
    keys = list(jax.random.split(jax.random.PRNGKey(0), 20))
    for run in runs.values():
        jax.block_until_ready(run(keys[0], ecg, mask))
    for _ in range(args.rounds):
        for name, run in runs.items():
            begin = time.perf_counter()
            for key in keys:
                jax.block_until_ready(run(key, ecg, mask))
            times[name].append((time.perf_counter() - begin) / len(keys))
    rows = []
    for name in names:
        ratios = [a / b for a, b in zip(times[name], times["sign"], strict=True)]
        figures = {"ms": 1000 * statistics.median(times[name]), "ratio": statistics.median(ratios)}
        rows.append({"augmentation": name, **figures})
    report.show(rows, batch=args.batch, rate=args.rate, samples=T, rounds=args.rounds)


if __name__ == "__main__":
    main()
