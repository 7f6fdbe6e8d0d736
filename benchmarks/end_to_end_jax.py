"""Our side of `end_to_end.py`: `ecg_jax.train` without its evaluation and checkpoints.

After the first step it prints its figures; for every number read it makes so many steps and prints
what each took.
"""

import json
import sys
import time

import jax

from configs import etp
from ecg_jax.models.resnet1d import activations
from ecg_jax.run.experiment import open_experiment
from ecg_jax.runtime import parallel, process
from ecg_jax.training import feed, optim
from ecg_jax.training.state import init
from ecg_jax.training.step import make_dispatch


def main() -> None:
    job = json.loads(sys.argv[1])
    process.configure()
    config = etp.get_config(f"rate={job['rate']},text={job['text']}")
    config.data_dir, config.dataset = job["data_dir"], job["dataset"]
    config.batch_size, config.shards = job["batch"], min(config.shards, job["batch"])
    config.augment, config.normalize, config.model.same_report = (), "millivolt", False
    experiment = open_experiment(config)
    data, plan, steps = feed.load(experiment)
    optimizer = optim.build(config, steps)
    state = init(experiment, optimizer, plan)
    dispatch = make_dispatch(config, experiment.method, optimizer, steps)

    def step() -> None:
        nonlocal state
        state, metrics = dispatch(state, data, 1)
        jax.block_until_ready(metrics)

    step()
    figures = {
        "first_step": time.time() - job["started"],
        "parameters": sum(p.size for p in jax.tree.leaves(state.params)),
        "embedding": experiment.tower.embed(["sinus rhythm. normal ecg."])[0].tolist(),
        "steps": steps,
        "pairs": sum(map(int, data.split.count)),
        "reports": len(data.tables.texts),
        "device": jax.devices()[0].device_kind,
        "dtype": activations(config.model.dtype, parallel.platform()).name,
    }
    print(json.dumps(figures), flush=True)
    for line in sys.stdin:
        times = []
        for _ in range(int(line)):
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start)
        print(json.dumps(times), flush=True)


if __name__ == "__main__":
    main()
