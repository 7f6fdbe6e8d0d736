"""Label sets are found by dataset and name, and windows get one class."""

import numpy as np
import pytest

from ecg_jax.errors import UserError
from ecg_jax.evaluation import tasks
from ecg_jax.evaluation.papers import windows


@pytest.mark.parametrize(
    ("dataset", "task", "section"),
    [
        ("ptb_xl", "super", "super"),
        ("ptb_xl", "sub", "sub"),
        *(("ptb_xl", task, "scp") for task in ("form", "rhythm", "diagnostic", "all")),
        ("cpsc2018", "cpsc", "cpsc"),
        ("mit_bih", "aami", "aami"),
        ("mit_bih", "rhythm", "mit_rhythm"),
        ("simulated", "findings", "scp"),
        ("own_records", "scp", "scp"),
    ],
)
def test_sections(dataset, task, section):
    assert tasks.section(dataset, task) == section


@pytest.mark.parametrize(
    ("dataset", "task", "message"),
    [
        ("mit_bih", "super", "mit_bih has no label set 'super': it has aami, rhythm; super is of"),
        ("ptb_xl", "rythm", r"ptb_xl has no label set 'rythm': it has .*; did you mean rhythm\?"),
        ("own_records", "rhythm", "own_records is no dataset of this project"),
    ],
)
def test_a_label_set_that_the_dataset_lacks(dataset, task, message):
    with pytest.raises(UserError, match=message):
        tasks.section(dataset, task)


def test_tasks_are_checked_against_the_records():
    present = {"aami": ["N"], "rhythm": ["NSR"]}
    tasks.check("mit_bih", present, ["aami", "rhythm"])
    with pytest.raises(UserError, match="mit_bih has no label set 'form': it has aami, rhythm"):
        tasks.check("mit_bih", present, ["aami", "form"])


def test_a_window_has_its_most_serious_class():
    classes = ["N", "S", "V", "F", "Q"]
    y = np.array(
        [
            [1, 0, 0, 0, 0],
            [1, 1, 0, 0, 0],
            [1, 1, 1, 1, 1],
            [1, 0, 0, 1, 1],
            [1, 0, 0, 0, 1],
            [0, 0, 0, 0, 0],
        ]
    )
    one = windows.most_serious(y, classes)
    assert one.dtype == bool and one.sum(axis=1).tolist() == [1, 1, 1, 1, 1, 0]
    assert [classes[k] for k in one[:5].argmax(axis=1)] == ["N", "S", "V", "F", "Q"]
    assert (one <= y.astype(bool)).all()
    turned = windows.most_serious(y[:, ::-1], classes[::-1])  # by name, not by position
    np.testing.assert_array_equal(turned[:, ::-1], one)


def test_windows_need_the_aami_classes():
    with pytest.raises(UserError, match="are not the AAMI classes"):
        windows.most_serious(np.ones((2, 2), bool), ["NSR", "AFIB"])
    with pytest.raises(UserError, match="are not the AAMI classes"):
        windows.most_serious(np.ones((2, 4), bool), ["N", "S", "V", "F", "Q"])


@pytest.mark.real_data
def test_mit_bih_windows_are_what_the_docstring_says(real_data):
    """Counted from the annotations of DS2 by themselves."""
    import wfdb

    from tfds_builders.mit_bih.mit_bih_dataset_builder import SPLITS
    from tfds_builders.mit_bih.read import AAMI_OF_BEAT

    classes, seconds, fs = ["N", "S", "V", "F", "Q"], 10, 360
    y = np.zeros((len(SPLITS["test"]), 181, 5), bool)
    for windows_of_record, record in zip(y, SPLITS["test"], strict=True):
        annotation = wfdb.rdann(str(real_data / "mitdb" / str(record)), "atr")
        for sample, symbol in zip(annotation.sample, annotation.symbol, strict=True):
            if symbol in AAMI_OF_BEAT:
                k = classes.index(AAMI_OF_BEAT[symbol])
                windows_of_record[sample // (seconds * fs), k] = True
    y = y.reshape(-1, 5)
    assert len(y) == 3982
    only = y[y.sum(axis=1) == 1].sum(axis=0)
    assert only.tolist() == [2506, 6, 0, 0, 0]
    one = windows.most_serious(y, classes)
    assert one.sum(axis=0).tolist() == [2506, 330, 1122, 20, 4]
