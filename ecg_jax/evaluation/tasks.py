"""Which label sets a dataset has, and which section of the prompts names their classes."""

import difflib

from ecg_jax.data.classes import OWN, SECTIONS, TASKS
from ecg_jax.errors import UserError


def section(dataset: str, task: str) -> str:
    """The section of prompts.toml that holds the classes of a dataset's task.

    `rhythm` means SCP-ECG statements in PTB-XL and annotations of other names in MIT-BIH, so the
    task's name alone does not say. A dataset that this project does not build has the tasks that
    are called like a section (`super`, `scp`, `cpsc`, ...), and `labels`, of classes of its own.

    Raises:
      UserError: the dataset has no such label set.
    """
    if dataset in TASKS:
        if task in TASKS[dataset]:
            return TASKS[dataset][task].section
        raise UserError(_lacks(dataset, task, tuple(TASKS[dataset])))
    if task in SECTIONS or task == OWN:
        return task
    raise UserError(
        f"{dataset} is no dataset of this project, and no section of the prompts is called "
        f"{task!r}: call the task like the one that its classes are of: {', '.join(SECTIONS)}"
    )


def check(dataset: str, present: dict[str, list[str]], tasks: list[str]) -> None:
    """Raises a UserError for a task that is not among those `present` in a dataset's records.

    Args:
      present: task -> class names, `Records.classes`.
    """
    for task in tasks:
        if task not in present:
            raise UserError(_lacks(dataset, task, tuple(present)))


def _lacks(dataset: str, task: str, present: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(task, present, n=1)
    elsewhere = [name for name, tasks in TASKS.items() if name != dataset and task in tasks]
    hint = f"; did you mean {near[0]}?" if near else ""
    if elsewhere and not near:
        hint = f"; {task} is of {' and '.join(elsewhere)}"
    return f"{dataset} has no label set {task!r}: it has {', '.join(present)}{hint}"
