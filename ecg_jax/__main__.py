"""All programs by one name: `ecg-jax train ...` is `python -m ecg_jax.train ...`."""

import importlib
import sys

# command -> the module whose `main` it is, and what it does
COMMANDS = {
    "train": ("ecg_jax.train", "pre-trains, and evaluates"),
    "evaluate": ("ecg_jax.evaluate", "evaluates a run under other tasks and protocols"),
    "predict": ("ecg_jax.predict", "scores recordings, with a page for each"),
    "prepare": ("tfds_builders.prepare", "prepares a dataset, or recordings of your own"),
    "export": ("ecg_jax.export", "writes a run's model as a folder to take away"),
    "plan": ("ecg_jax.plan", "whether a run fits on machines that are not here"),
    "reproduce": ("ecg_jax.reproduce", "a published table, trained and evaluated"),
    "show_prompts": ("ecg_jax.tools.show_prompts", "which prompt serves which class"),
    "show_augment": ("ecg_jax.tools.show_augment", "draws what augmentations do"),
}

# What the extra `train` installs, by the names that are imported.
TRAIN = ("array_record", "grain", "importlib_resources", "tensorboardX", "tensorflow_datasets")
TRAIN += ("orbax", "requests", "transformers", "wfdb")


def main() -> None:
    """Runs a command; wrong input is one line and exit status 2."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        lines = [f"  {name:<{width}}  {does}" for name, (_, does) in COMMANDS.items()]
        print(
            "usage: ecg-jax COMMAND ...\n", *lines, "\necg-jax COMMAND --help says more", sep="\n"
        )
        sys.exit(0)
    if name not in COMMANDS:
        print(f"error: no command {name!r}: there are {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(2)
    sys.argv = [f"ecg-jax {name}", *sys.argv[2:]]
    try:
        module = importlib.import_module(COMMANDS[name][0])
        importlib.import_module("ecg_jax.errors").run_main(module.main)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in TRAIN:
            raise
        needs = f"ecg-jax {name} needs {error.name}: pip install 'ecg-jax[train]'"
        print(f"error: {needs}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
