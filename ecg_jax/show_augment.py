"""`python -m ecg_jax.show_augment`: see `tools.show_augment`."""

from ecg_jax.errors import run_main
from ecg_jax.tools.show_augment import main

if __name__ == "__main__":
    run_main(main)
