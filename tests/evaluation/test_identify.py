"""Identification: which records are compared, ranks, intervals, and what is refused."""

import types

import numpy as np
import pytest

from ecg_jax.data.records import Records
from ecg_jax.errors import UserError
from ecg_jax.evaluation import identify, tabulate
from ecg_jax.evaluation.guards import leaks
from ecg_jax.evaluation.subject import Subject

T, RATE = 1000, 100


def split(name, ids, patients, dataset="own"):
    rng = np.random.default_rng([len(ids), len(name)])
    ecg = rng.integers(-500, 500, (len(ids), T, 12)).astype(np.int16)
    ecg[:, :, 0] = np.array([int(p[1:]) for p in patients])[:, None]  # lead I says whose it is
    return Records(
        dataset=dataset,
        split=name,
        rate=RATE,
        ecg=ecg,
        length=np.full(len(ids), T, np.int32),
        signal_sha256=rng.integers(0, 256, (len(ids), 32)).astype(np.uint8),
        lead_mask=np.ones((len(ids), 12), bool),
        record_id=np.array(ids),
        patient_id=np.array(patients),
        report=[""] * len(ids),
        person=np.full((len(ids), 2), np.nan, np.float32),
        labels={},
        classes={},
        recorded=np.array([float(i) if str(i).isdigit() else np.nan for i in ids]) * 10,
    )


def three():
    """Patients p0-p9 have records 10 to 29 in twos, p20 and p21 one each."""
    train = split("train", [str(i) for i in range(10, 22)], [f"p{i // 2}" for i in range(12)])
    ids = [*map(str, range(22, 30)), "5", "6"]
    test = split("test", ids, [*(f"p{6 + i // 2}" for i in range(8)), "p20", "p21"])
    return {"train": train, "validation": split("validation", ["7"], ["p30"]), "test": test}


def test_the_earlier_record_is_the_gallery():
    ids, patients = ["10", "9", "2", "1", "3"], ["a", "a", "b", "b", "c"]
    found = identify.pairs(ids, patients)
    assert found.patient_id.tolist() == ["a", "b"]
    assert [ids[i] for i in found.earlier] == ["9", "1"]
    assert [ids[i] for i in found.later] == ["10", "2"]
    many = identify.pairs([str(i) for i in range(50)], ["a"] * 50, seed=3)
    assert many.earlier[0] < many.later[0]
    assert identify.pairs([str(i) for i in range(50)], ["a"] * 50, seed=3).later == many.later


def test_ranks_by_hand():
    gallery = np.array([[1.0, 0], [0, 1], [1, 1]])
    probe = np.array([[2.0, 0], [3, 1], [-1, -1]])
    assert identify.ranks(gallery, probe).tolist() == [1, 3, 3]
    same = np.ones((4, 2))
    assert identify.ranks(same, same).tolist() == [4] * 4  # equal ones count against it


def test_both_galleries_and_their_figures():
    splits = three()
    made = identify.galleries(splits)
    parts, patients = made["all"]
    assert patients.tolist() == [f"p{i}" for i in range(10)] and len(made["test"][1]) == 4
    assert [len(p) for p in parts] == [6, 4, 6, 4]
    joined = np.concatenate([p.patient_id for p in parts])
    assert joined.tolist() == [*patients, *patients]
    found = identify.rows(
        np.array([1, 1, 3, 6]),
        patients[:4],
        dataset="own",
        split="test",
        encoder="trained",
        condition="",
        draws=200,
    )
    assert [(row["metric"], row["value"], row["chance"]) for row in found] == [
        ("rank-1", 0.5, 0.25),
        ("rank-5", 0.75, 1.0),
    ]
    assert found[0]["ci_low"] < 0.5 < found[0]["ci_high"]


def test_an_encoder_that_reads_the_patient_finds_everybody():
    splits = three()
    config = types.SimpleNamespace(protocols=("identify",), draws=20)
    experiment = types.SimpleNamespace(config=types.SimpleNamespace(evaluate=config), **splits)

    class Reader(Subject):
        def _compute(self, records):
            angle = records.ecg[:, :, 0].mean(axis=1) / 10
            return types.SimpleNamespace(features=np.stack([np.cos(angle), np.sin(angle)], axis=1))

    subject = Reader("trained", types.SimpleNamespace(experiment=experiment), None, None)
    table = tabulate.identification_rows(subject)
    assert len(table) == 8 and all(row["value"] == 1.0 for row in table)
    assert {row["condition"] for row in table} == {"", "crops of 5 s"}
    apart = "a median of 10 days apart (quartiles 10 to 10)"
    notes = {row["split"]: row["note"] for row in table}
    assert notes == {
        "test": f"0 of 4 patients were in the pre-training; {apart}",
        "all": f"6 of 10 patients were in the pre-training; {apart}",
    }
    config.protocols = ("linear_probe",)
    assert tabulate.identification_rows(subject) == []


def test_crops_are_parts_of_the_record_and_stay_the_same():
    test = three()["test"]
    one, two = identify.crop(test), identify.crop(test.take([1, 0]))
    assert one.ecg.shape == (10, 500, 12) and (one.length == 500).all()
    np.testing.assert_array_equal(one.ecg[0], two.ecg[1])
    starts = [
        next(s for s in range(501) if np.array_equal(w[s : s + 500], c))
        for w, c in zip(test.ecg, one.ecg, strict=True)
    ]
    assert len(set(starts)) > 5
    with pytest.raises(UserError, match=r"crops 5 s, and own's records are read to 1 s"):
        identify.crop(identify.dataclasses.replace(test, ecg=test.ecg[:, :100]))


def test_ptb_xl_has_2111_patients():
    identify.check_known("ptb_xl", 21_799, 2_111)
    identify.check_known("ptb_xl", 2_801, 67)
    with pytest.raises(UserError, match=r"ptb_xl of 21,799 records has 2,110 patients with two"):
        identify.check_known("ptb_xl", 21_799, 2_110)


def test_what_is_refused():
    splits = three()
    with pytest.raises(UserError, match="no patient has two: choose a dataset with patients"):
        identify.pairs(["1", "2"], ["a", "b"])
    with pytest.raises(UserError, match=r"1 of the test's patients have records in the training"):
        identify.check_unseen(splits["train"], ["p3", "p8"], "own")
    identify.check_unseen(splits["train"], ["p8"], "own")
    splits["train"].patient_id[3] = "p8"  # who is tested
    with pytest.raises(UserError, match=r"1 of the test's patients have records in the training"):
        identify.galleries(splits)


def test_a_segment_level_split_is_a_leak():
    """Halves of one recording in train and test, under patients that are not told."""
    names = [f"JS{i:05d}" for i in range(6)]
    halves = {
        which: split(which, [f"{n}_{i}" for n in names], [f"p{i}{j}" for j in range(6)])
        for i, which in enumerate(("train", "test"))
    }
    with pytest.raises(UserError, match=r"segments of 6 recordings are in both own train and own "):
        leaks.check_leaks(halves["train"], halves["test"])
    leaks.check_leaks(
        split("train", [f"JS_{i}" for i in range(6)], [f"p{i}" for i in range(6)]),
        split("test", [f"JS_{i}" for i in range(6, 12)], [f"p{i}" for i in range(6, 12)]),
    )
