"""Planted faults: leaks between splits and label columns in the wrong place are caught."""

import dataclasses

import numpy as np
import pytest
from scipy.stats import rankdata

from ecg_jax import evaluate
from ecg_jax.data import challenge, records, stored
from ecg_jax.data.classes import SUBCLASS, SUPERCLASS, TASKS
from ecg_jax.data.records import Records
from ecg_jax.errors import UserError
from ecg_jax.evaluation.guards import label_check, leaks
from ecg_jax.evaluation.protocols import linear_probe
from ecg_jax.run import workdir
from ecg_jax.run.experiment import open_experiment

SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def prepared(simulated) -> dict[str, Records]:
    return {split: records.load(simulated, "simulated", 100, split) for split in SPLITS}


def changed(array, rows, values):
    array = array.copy()
    array[rows] = values
    return array


def swapped(split: Records, task: str, a: str, b: str) -> Records:
    """The split with two label columns in each other's place, under unchanged names."""
    i, j = (split.classes[task].index(name) for name in (a, b))
    y = split.labels[task].copy()
    y[:, [i, j]] = y[:, [j, i]]
    return dataclasses.replace(split, labels={**split.labels, task: y})


def renamed(split: Records, task: str, names: list[str]) -> Records:
    return dataclasses.replace(split, classes={**split.classes, task: names})


def as_it_is(prepared):
    return tuple(prepared[split] for split in SPLITS)


# Leaks


def test_the_records_as_they_are_have_no_leak(prepared):
    leaks.check_leaks(*as_it_is(prepared))


@pytest.mark.parametrize("other", ["train", "validation"])
def test_a_patient_in_two_splits(prepared, other):
    leaked = prepared[other].patient_id[3]
    splits = dict(prepared)
    ids = changed(prepared["test"].patient_id.astype(object), 5, leaked).astype(str)
    splits["test"] = dataclasses.replace(prepared["test"], patient_id=ids)
    with pytest.raises(UserError, match=rf"1 patients are in both {other} and test \({leaked}\)"):
        leaks.check_leaks(*as_it_is(splits))


def test_a_record_in_two_splits_under_another_patient(prepared):
    test, train = prepared["test"], prepared["train"]
    ids = changed(test.record_id.astype(object), 0, train.record_id[7]).astype(str)
    with pytest.raises(UserError, match="1 record ids are in both train and test"):
        leaks.check_leaks(train, dataclasses.replace(test, record_id=ids))


def test_a_recording_under_another_name(prepared):
    """Neither patient nor id gives it away, nor even the dataset."""
    test, train = prepared["test"], prepared["train"]
    copied = dataclasses.replace(
        test,
        dataset="elsewhere",
        ecg=changed(test.ecg, 2, train.ecg[4]),
        signal_sha256=changed(test.signal_sha256, 2, train.signal_sha256[4]),
    )
    message = rf"1 recordings of simulated train are also in .* \({train.record_id[4]} = "
    with pytest.raises(UserError, match=message + str(test.record_id[2])):
        leaks.check_leaks(train, copied)


def test_recordings_of_nothing_but_zeros_are_no_evidence(prepared):
    def silent(split):
        row = stored.digest(np.zeros_like(split.ecg[0]))
        return dataclasses.replace(
            split,
            ecg=changed(split.ecg, 0, 0),
            signal_sha256=changed(split.signal_sha256, 0, row),
        )

    leaks.check_leaks(silent(prepared["train"]), silent(prepared["test"]))


@pytest.fixture
def run(small, tmp_path):
    """A run's folder and experiment before any training."""
    experiment = open_experiment(small)
    workdir.claim(tmp_path / "run", experiment)
    return experiment, tmp_path / "run"


def plant(experiment, **splits):
    """The experiment with other records in place of its splits'."""
    experiment = dataclasses.replace(experiment)
    for name in SPLITS:
        split = splits.get(name)
        vars(experiment)[name] = split if split is not None else getattr(experiment, name)
    return experiment


def test_evaluation_stops_at_a_planted_patient(run, tmp_path):
    """Leaked from the first, so that the run's own record of its data agrees."""
    experiment, _ = run
    ids = experiment.test.patient_id.astype(object)
    ids = changed(ids, 0, experiment.train.patient_id[0]).astype(str)
    leaky = plant(experiment, test=dataclasses.replace(experiment.test, patient_id=ids))
    workdir.claim(tmp_path / "leaky", leaky)
    with pytest.raises(UserError, match="1 patients are in both train and test"):
        evaluate.check_records(leaky, tmp_path / "leaky")


def test_evaluation_stops_at_columns_swapped_since_training(run):
    experiment, folder = run
    evaluate.check_records(experiment, folder)
    a, b = experiment.test.classes["super"][:2]
    planted = plant(experiment, test=swapped(experiment.test, "super", a, b))
    with pytest.raises(UserError, match="the test records differ"):
        evaluate.check_records(planted, folder)
    names = experiment.test.classes["super"][::-1]
    planted = plant(experiment, test=renamed(experiment.test, "super", names))
    with pytest.raises(UserError, match="the test records differ"):
        evaluate.check_records(planted, folder)


def test_evaluation_stops_at_columns_swapped_before_training(run, tmp_path):
    """So that the run's own record of its data agrees."""
    experiment, _ = run
    planted = plant(experiment, test=swapped(experiment.test, "super", "MI", "STTC"))
    workdir.claim(tmp_path / "swapped", planted)
    with pytest.raises(UserError, match=r"simulated test: .* MI .*hold what .* of STTC"):
        evaluate.check_records(planted, tmp_path / "swapped")


# Label columns: names and hierarchy


@pytest.mark.parametrize("task", TASKS["simulated"])
def test_the_labels_as_they_are(prepared, task):
    label_check.check_labels(*as_it_is(prepared), task)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("task", TASKS["simulated"])
def test_swapped_columns_contradict_the_findings(prepared, split, task):
    splits = dict(prepared)
    splits[split] = swapped(prepared[split], "super", "MI", "STTC")
    with pytest.raises(UserError, match=f"simulated {split}: .* MI .*hold what .* of STTC") as e:
        label_check.check_labels(*as_it_is(splits), task)
    assert "STTC (" in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize("rotate", [1, 2])
def test_names_in_another_order_than_the_columns(prepared, rotate):
    names = prepared["train"].classes["super"]
    turned = names[rotate:] + names[:rotate]
    splits = dict(prepared, test=renamed(prepared["test"], "super", turned))
    with pytest.raises(UserError, match="test: super has other columns than train, or in another"):
        label_check.check_labels(*as_it_is(splits), "super")
    everywhere = {name: renamed(split, "super", turned) for name, split in prepared.items()}
    with pytest.raises(UserError, match="label columns of super contradict those of findings"):
        label_check.check_labels(*as_it_is(everywhere), "super")


def test_names_that_are_not_the_classes(prepared):
    names = prepared["test"].classes["super"]
    cases = {
        "names MI twice": [*names[:-1], "MI"] if names[-1] != "MI" else ["MI", *names[1:]],
        "has other classes than known: AMI, MI": ["AMI" if n == "MI" else n for n in names],
        "5 .* for .* 4 names": names[:-1],
    }
    for message, wrong in cases.items():
        message = message.replace("5 .*", r"label columns of super of shape \(\d+, 5\)")
        splits = dict(prepared, test=renamed(prepared["test"], "super", wrong))
        with pytest.raises(UserError, match=message):
            label_check.check_labels(*as_it_is(splits), "super")
    with pytest.raises(UserError, match="simulated has no label set 'form'"):
        label_check.check_labels(*as_it_is(prepared), "form")


@pytest.fixture(scope="module")
def ptb_xl(prepared) -> Records:
    """Records with PTB-XL's label sets, made from statements drawn at random."""
    rng = np.random.default_rng(0)
    classes = {task: sorted(names) for task, (_, names) in TASKS["ptb_xl"].items()}
    every = rng.random((200, 71)) < 0.08
    labels = {"all": every}
    for task in ("form", "rhythm", "diagnostic"):
        labels[task] = every[:, [classes["all"].index(code) for code in classes[task]]]
    for task, group in (("super", SUPERCLASS), ("sub", SUBCLASS)):
        labels[task] = np.zeros((200, len(classes[task])), bool)
        for n, row in enumerate(labels["diagnostic"]):
            for k in np.flatnonzero(row):
                labels[task][n, classes[task].index(group[classes["diagnostic"][k]])] = True
    made = challenge.from_scp(every, classes["all"])
    labels["challenge"] = made[:, [challenge.PTB_XL.index(name) for name in classes["challenge"]]]
    first = prepared["train"].take(np.arange(200))
    return dataclasses.replace(first, dataset="ptb_xl", labels=labels, classes=classes)


def test_ptb_xl_labels_as_they_are(ptb_xl):
    for task in TASKS["ptb_xl"]:
        label_check.check_labels(ptb_xl, ptb_xl, ptb_xl, task)


@pytest.mark.parametrize(
    ("task", "a", "b"),
    [
        ("super", "HYP", "CD"),
        ("sub", "ISCA", "ISCI"),
        ("sub", "NST_", "_AVB"),
        ("form", "PVC", "PAC"),
        ("rhythm", "AFIB", "AFLT"),
        ("diagnostic", "IMI", "LVH"),
        ("all", "SR", "STACH"),
        ("all", "IMI", "ASMI"),
        ("challenge", "SB", "STach"),
    ],
)
def test_any_swap_in_ptb_xl_is_seen(ptb_xl, task, a, b):
    with pytest.raises(UserError, match="a column is misplaced") as error:
        label_check.check_hierarchy(swapped(ptb_xl, task, a, b), task)
    assert a in str(error.value) and b in str(error.value)


# Label columns: scores


@pytest.fixture(scope="module")
def probed():
    """Scores for four classes, one of them rare, learnt on train and given to test."""
    rng = np.random.default_rng(1)
    direction = rng.normal(size=(4, 16))

    def draw(n):
        y = rng.random((n, 4)) < (0.4, 0.3, 0.25, 0.02)
        return y @ direction + 1.5 * rng.normal(size=(n, 16)), y

    train, validation, test = draw(600), draw(200), draw(300)
    patient = np.array([f"p{i // 2}" for i in range(300)])
    return train, validation, test, patient


CLASSES = ["NORM", "MI", "CD", "WPW"]


def check(probed, train_columns=(0, 1, 2, 3), test_columns=(0, 1, 2, 3)):
    (x, y), (x_val, y_val), (x_test, y_test), patient = probed
    train_columns, test_columns = list(train_columns), list(test_columns)
    probe = linear_probe.fit(x, y[:, train_columns], x_val, y_val[:, train_columns], l2s=(0.1,))
    score = linear_probe.predict(probe, x_test)
    label_check.check_columns(y_test[:, test_columns], score, patient, CLASSES, where="x test")


def test_columns_in_their_place_pass(probed):
    check(probed)


@pytest.mark.parametrize("order", [(1, 0, 2, 3), (2, 1, 0, 3), (1, 2, 0, 3)])
def test_misplaced_columns_are_seen_in_the_scores(probed, order):
    """Swapped in test, or in train and validation, or three of them turned, as in a published
    label file of this field."""
    for where in ({"test_columns": order}, {"train_columns": order}):
        with pytest.raises(UserError, match="x test: label columns look misplaced") as error:
            check(probed, **where)
        moved = [CLASSES[k] for k in range(3) if order[k] != k]
        assert all(name in str(error.value) for name in moved)
        assert "WPW" not in str(error.value)


def test_scores_that_learnt_nothing_are_no_evidence():
    rng = np.random.default_rng(2)
    patient = np.array([f"p{i}" for i in range(150)])
    names = [f"c{k}" for k in range(20)]
    for _ in range(20):
        y = rng.random((150, 20)) < 0.15
        label_check.check_columns(y, rng.normal(size=y.shape), patient, names, where="x")


def test_columns_without_scores_are_left_out(probed):
    _, _, (_, y), patient = probed
    score = y + 0.1 * np.random.default_rng(3).normal(size=y.shape)
    score[:, 2] = np.nan
    label_check.check_columns(y, score, patient, CLASSES, where="x")
    with pytest.raises(UserError, match=r"as NORM by the scores of MI .*, MI by the scores of"):
        label_check.check_columns(y[:, [1, 0, 2, 3]], score, patient, CLASSES, where="x")


def test_ranks_are_scipys():
    rng = np.random.default_rng(0)
    score = rng.normal(size=(50, 4))
    score[:, 1] = rng.integers(0, 5, 50)  # ties
    score[3, 2], score[4, 3] = np.nan, np.inf
    np.testing.assert_array_equal(label_check.ranks(score), rankdata(score, axis=0))
