"""`python -m ecg_jax.train` with two residual blocks for eight, which starts in less time."""

import agreement

from ecg_jax import train
from ecg_jax.errors import run_main
from ecg_jax.models import resnet1d

if __name__ == "__main__":
    resnet1d.STAGES = agreement.SHALLOW
    run_main(train.main)
