"""`python -m ecg_jax.show_prompts`: see `tools.show_prompts`."""

from ecg_jax.errors import run_main
from ecg_jax.tools.show_prompts import main

if __name__ == "__main__":
    run_main(main)
