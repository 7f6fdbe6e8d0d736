"""Which prompts serve which class: python -m ecg_jax.tools.show_prompts --workdir DIR
    [--dataset NAME] [--tasks A,B] [--data_dir DIR] [--file FILE]

AUROC of every prompt set for every class, and of every wording, on the validation split alone, by
a run's best checkpoint. `python -m ecg_jax.text.prompts` lists the prompts without a run.
"""

import argparse

import jax

from ecg_jax import evaluate
from ecg_jax.errors import UserError, run_main
from ecg_jax.evaluation.protocols import prompt_choice, zero_shot
from ecg_jax.evaluation.scoring import judged
from ecg_jax.evaluation.subject import Material, Subject
from ecg_jax.run import workdir
from ecg_jax.run.experiment import open_experiment
from ecg_jax.runtime import process, storage
from ecg_jax.text.prompts import ENSEMBLE


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, prog="python -m ecg_jax.tools.show_prompts"
    )
    parser.add_argument("--workdir", required=True, help="the run's folder")
    parser.add_argument("--data_dir", help="where the prepared data lie, if not where they were")
    parser.add_argument("--dataset", help="another one than that of the training; needs --tasks")
    parser.add_argument("--tasks", help="comma-separated, if not the run's own")
    parser.add_argument("--file", help="a prompt file of your own")
    args = parser.parse_args()
    process.configure()
    folder = storage.path(args.workdir)
    config, _ = workdir.read(folder)
    if args.dataset and args.dataset != config.dataset and not args.tasks:
        raise UserError(f"--dataset {args.dataset} needs --tasks: its label sets, such as aami")
    config.dataset = args.dataset or config.dataset
    config.data_dir = args.data_dir or config.data_dir
    config.evaluate.prompts = args.file or config.evaluate.prompts
    if args.tasks:
        config.evaluate.tasks = args.tasks.split(",")
    experiment = open_experiment(config, trains=False)
    if experiment.method.encode_text is None:
        raise UserError(f"{config.method} has no text side, so that no prompt serves it")
    experiment = evaluate.check_records(experiment, folder)
    _, params, state = evaluate.restore(folder, *experiment.init(jax.random.key(0)))
    subject = Subject("trained", Material(experiment), params, state)
    print("\n\n".join(table(subject, task) for task in config.evaluate.tasks))


def table(subject: Subject, task: str) -> str:
    """Prompt sets and wordings of a task's classes, by their AUROC on validation."""
    split = subject.material.experiment.validation
    rows, y = judged(split, task, "corrected")
    embedding, positives = subject.encode(split).embedding[rows], y.sum(axis=0).tolist()
    scores = {name: zero_shot.scores(embedding, c) for name, c in subject.classes(task).items()}
    sets = prompt_choice.set_auroc(scores, y)
    wordings = subject.material.prompts(task)[ENSEMBLE]
    embedded = {name: subject.embed(x) for name, (_, x) in wordings.items()}
    auroc = prompt_choice.wording_auroc(embedding, embedded, y)
    texts = {name: text for name, (text, _) in wordings.items()}
    return "\n".join(
        [
            f"{split.dataset} {task}, {len(rows)} validation records",
            prompt_choice.choice_table(sets, split.classes[task], positives),
            "",
            prompt_choice.wording_table(texts, auroc, positives),
        ]
    )


if __name__ == "__main__":
    run_main(main)
