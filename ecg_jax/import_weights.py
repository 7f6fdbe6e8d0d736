"""`python -m ecg_jax.import_weights`: see `tools.import_weights`."""

from ecg_jax.errors import run_main
from ecg_jax.tools.import_weights import main

if __name__ == "__main__":
    run_main(main)
