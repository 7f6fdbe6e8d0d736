"""One class for each window of MIT-BIH: the set that METS tests on.

METS cuts MIT-BIH "the same way" as PTB-XL, into single-label records of ten seconds, and says no
more. Windows with beats of exactly one AAMI class cannot have been its set: of the 3,982 windows of
DS2 they are 2,506 of N and 6 of S, where always answering N is right in 99.8 %, and METS's
supervised network is right in 83.6 %. So a window is given the most serious class that occurs in
it, as a reader names a strip by its worst finding; N, the class of 63 % of these windows, is then
the commonest, not the only one.
"""

from collections.abc import Sequence

import numpy as np

from ecg_jax.data.classes import AAMI
from ecg_jax.errors import UserError

WHERE = ("mit_bih", "aami")  # dataset and task
# From the most to the least serious; a beat that cannot be classified says little.
SERIOUS = ("V", "F", "S", "Q", "N")


def most_serious(y: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """The most serious AAMI class of each window.

    Args:
      y: bool [N, 5], which classes have a beat in the window.
      classes: the five names, in the order of the columns.

    Returns:
      bool [N, 5] with one true column in each row, none in windows without a beat (ventricular
      flutter is annotated as a rhythm, not as beats).

    Raises:
      UserError: columns that are not AAMI's classes.
    """
    y = np.asarray(y, bool)
    if sorted(classes) != sorted(AAMI) or y.ndim != 2 or y.shape[1] != len(classes):
        raise UserError(
            f"labels of shape {y.shape} with classes {', '.join(classes)} are not the AAMI classes "
            f"{', '.join(AAMI)}"
        )
    order = [list(classes).index(name) for name in SERIOUS]
    ranked = y[:, order]
    worst = ranked & (np.cumsum(ranked, axis=1) == 1)
    one = np.zeros_like(y)
    one[:, order] = worst
    return one
