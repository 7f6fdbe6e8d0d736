"""A linear probe, from features to figures with intervals: the whole path of penalties, then every
metric of the test split with its bootstrap.

    python -m benchmarks.probe
    python -m benchmarks.probe --records 17000

Features are random numbers, as correlated with each other as a trained network's; labels follow
from them, with prevalences from a half to a few records. A tenth as many records validate, and a
tenth test, at least 300 each. Seconds hold compilation.
"""

import argparse
import contextlib
import time

import jax
import numpy as np

from benchmarks import report
from ecg_jax.evaluation.figures import bootstrap, metrics, results
from ecg_jax.evaluation.protocols import knn, linear_probe


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=int, default=2300, help="of the training split")
    parser.add_argument("--features", type=int, default=512)
    parser.add_argument("--labels", type=int, default=71)
    parser.add_argument("--draws", type=int, default=1000)
    args = parser.parse_args()
    x, y, patient = data(args.records, args.features, args.labels)
    times = {}

    @contextlib.contextmanager
    def timed(part: str):
        begin = time.perf_counter()
        yield
        times[part] = time.perf_counter() - begin

    with timed(f"path of {len(linear_probe.L2S)} penalties"):
        probe = linear_probe.fit(x[0], y[0], x[1], y[1])
    with timed("scores and thresholds"):
        val, test = (linear_probe.predict(probe, part) for part in x[1:])
        threshold = metrics.best_f1_threshold(y[1], val)
    with timed(f"figures with {args.draws} draws"):
        found = results.rows(
            y[2],
            test,
            threshold,
            patient,
            task="all",
            dataset="random",
            split="test",
            protocol="linear_probe",
            encoder="random",
            classes=[f"label {k}" for k in range(args.labels)],
            draws=bootstrap.draws(patient, args.draws),
        )
    times["together"] = sum(times.values())
    with timed("nearest neighbours, for comparison"):
        knn.predict(knn.fit(x[0], y[0], x[1], y[1]), x[2])
    about = dict(l2=probe.l2, figures=len(found), macro_auroc=round(found[0]["value"], 3))
    report.show(
        [{"part": part, "seconds": seconds} for part, seconds in times.items()],
        device=jax.devices()[0].device_kind,
        **vars(args),
        **about,
    )


def data(n: int, width: int, labels: int) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    """Features and labels of three splits, and the test records' patients, of 1.2 records each.

    The features' variance in their principal components falls as that of ResNet18-1D's pooled
    features of PTB-XL: with 1 / i up to the tenth, then with i^-2.7.
    """
    rng = np.random.default_rng(0)
    sizes = [n, max(n // 10, 300), max(n // 10, 300)]
    hidden = rng.normal(size=(sum(sizes), width))
    i = np.arange(1, width + 1)
    variance = np.where(i < 10, 1 / i, (i / 10) ** -2.7 / 10)
    rotation = np.linalg.qr(rng.normal(size=(width, width)))[0]
    x = (hidden * np.sqrt(variance) @ rotation).astype(np.float32)
    slope = rng.normal(size=(width, labels)) / np.sqrt(i)[:, None]
    logit = hidden @ slope + rng.logistic(size=(sum(sizes), labels))
    prevalence = np.geomspace(0.5, 0.004, labels)
    cut = [np.quantile(column, 1 - p) for column, p in zip(logit.T, prevalence, strict=True)]
    ends = np.cumsum(sizes)[:-1]
    patient = rng.integers(0, sizes[2] / 1.2, sizes[2]).astype(str)
    return np.split(x, ends), np.split(logit > cut, ends), patient


if __name__ == "__main__":
    main()
