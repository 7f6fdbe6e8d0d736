"""LUDB: marks to waves and segments, its headers' gains, the fixed division."""

import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import wfdb

from ecg_jax.data import records
from ecg_jax.data.leads import LEADS
from tfds_builders import prepare
from tfds_builders.errors import RecordError
from tfds_builders.ludb import read, waves
from tfds_builders.simulated.ludb_layout import write_ludb, write_marks

HERE = Path("1.ii")


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ludb")
    write_ludb(folder)
    return folder


def marks(text: str) -> list[tuple[int, str]]:
    """ "10( 12p" as marks."""
    return [(int(number), symbol) for number, symbol in re.findall(r"(\d+)([()pNt])", text)]


def drawn(text: str, samples: int = 60, step: int = 1) -> str:
    """What the marks say of every sample: - none, P Q T, or ? for nothing."""
    given = marks(text)
    kind, known = waves.segments(waves.pair(given, samples, HERE), given, samples, step)
    return "".join("-PQT"[k] if sure else "?" for k, sure in zip(kind, known, strict=True))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3( 4p 6) 9( 10N 11)", "??-PPPP--QQQ-???"),
        # An onset that is not there is looked for in no other bracket.
        ("2( 3p 4) 8N 9) 12( 13t 14)", "?-PPP???QQ--TTT-"),
        ("2( 3p 4) 7( 8N 12( 13t 14)", "?-PPP--QQ???TTT-"),
        ("4N 6)", "???-QQQ-????????"),
        # Brackets beside their peak.
        ("2( 3p 4) 6N 7( 9) 11( 12t 13)", "?-PPP--QQQ-TTT-?"),
        ("2( 4) 5N 11( 12t 13)", "?-QQQ------TTT-?"),
        # A pair without a peak, and one too far from it.
        ("1( 4) 11( 12t 13)", "-????------TTT-?"),
        # One wave that is marked three times.
        ("1( 3( 5( 6t 7t 8t 9) 11) 13)", "-????TTTTT????-?"),
        ("", "?" * 16),
    ],
)
def test_marks_to_samples(text, expected):
    assert drawn(text, 16) == expected


def test_of_a_lower_rate_the_samples_are_those_of_the_same_instants():
    text = "12( 14p 23) 31( 33N 40) 41( 45t 52)"
    every = drawn(text, step=5)
    assert every == "??-PP--QQTT-"
    fine = drawn(text)
    assert all(a == b for a, b in zip(every, fine[::5], strict=True) if b != "?")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1( 3t 5( 6N 7) 9)", r"1\.ii: brackets cross: the wave that begins at sample 1 goes on"),
        ("1( 3p 2)", r"1\.ii: mark at sample 2 does not come after that at 3"),
        ("1( 3p 70)", r"1\.ii: marks outside the 60 samples: is it another record's"),
    ],
)
def test_marks_that_contradict_each_other(text, message):
    with pytest.raises(RecordError, match=message):
        waves.pair(marks(text), 60, HERE)


def test_a_mark_of_another_kind():
    with pytest.raises(RecordError, match=r"1\.ii: marks '\+', known are \( p N t \)"):
        waves.pair([(3, "+")], 60, HERE)


@pytest.mark.parametrize("rate", [100, 500])
def test_records(published, build, examples, rate):
    builder = build("ludb", published, "--rate", str(rate))
    found = examples(builder)
    splits = {key: split for key, (split, _) in found.items()}
    assert list(splits.values()) == ["train"] * 3 + ["validation"] + ["test"] * 2
    assert {key for key in splits if splits[key] == "test"} == {"101", "115"}
    total = Counter()
    for key, (_, example) in found.items():
        stem = published / "data" / key
        header = wfdb.rdheader(str(stem))
        digital = wfdb.rdrecord(str(stem), physical=False).d_signal
        assert header.sig_name == [lead.casefold() for lead in LEADS]
        if rate == 500:  # microvolts as they are, whatever gain the header gives
            np.testing.assert_array_equal(example["ecg"], digital)
        for lead, name in enumerate(LEADS):
            of_lead = wfdb.rdann(str(stem), name.casefold())
            total.update(of_lead.symbol)
            places = np.rint(of_lead.sample * rate / 500).astype(int)
            kinds = example["segments"][:, lead]
            known = example["segments_mask"][:, lead]
            for place, symbol in zip(places, of_lead.symbol, strict=True):
                near = slice(place - (rate < 500), place + 1 + (rate < 500))
                if symbol in waves.PEAKS:
                    assert waves.PEAKS[symbol] in kinds[near] and known[near].any()
            first, last = np.flatnonzero(known)[[0, -1]]
            assert abs(first - places[0] + 1) <= 1 and abs(last - places[-1] - 1) <= 1
            assert not kinds[~known].any()
    counts = builder.info.metadata["wave_counts"]
    assert counts == {"P": total["p"], "QRS": total["N"], "T": total["t"]}
    assert total["N"] > total["p"] > 0  # in atrial fibrillation there is none
    afib = found["104"][1]
    assert not (afib["segments"] == 1).any() and b"Atrial fibrillation" in afib["report"]
    rhythm = read.CLASSES["rhythm"].index("AFIB")
    assert afib["labels"]["rhythm"].tolist() == [i == rhythm for i in range(6)]
    assert found["105"][1]["labels"]["diagnosis"][read.CLASSES["diagnosis"].index("PVC")]


def test_read_into_memory_or_left_on_disk(published, tmp_path):
    options = ["--source", str(published), "--rate", "100", "--data_dir", str(tmp_path)]
    assert prepare.main(["ludb", *options]) == 0
    loaded = records.load(tmp_path, "ludb", 100, "train", seconds=9.0)
    stored = records.load(tmp_path, "ludb", 100, "train", seconds=9.0, stored=True)
    assert loaded.segments.shape == loaded.segments_mask.shape == loaded.ecg.shape == (3, 900, 12)
    assert loaded.segments.dtype == np.uint8 and loaded.segments_mask.dtype == bool
    assert loaded.segments_mask.any(axis=(1, 2)).all() and set(np.unique(loaded.segments)) == {
        *range(4)
    }
    np.testing.assert_array_equal(stored.segments, loaded.segments)
    one = loaded.take([2])
    np.testing.assert_array_equal(one.segments_mask[0], loaded.segments_mask[2])
    assert stored.fingerprint() == loaded.fingerprint()
    one.segments[0, 450, 3] += 1  # what is unlabelled is no part of it, and this is labelled
    assert one.fingerprint() != loaded.take([2]).fingerprint()


@pytest.mark.parametrize(
    ("comments", "message"),
    [
        (["#<age>: ?"], "<age> is '\\?'"),
        (["#<age>: 5", "#<sex>: X"], "<sex> is 'X'"),
        (["#<age>: 5", "#<sex>: F", "#<diagnoses>:"], "rhythm is 'missing'"),
        (["#<age>: 5", "#<sex>: F", "#<diagnoses>:", "#Rhythm: Waltz."], "rhythm is 'Waltz'"),
        (
            ["#<age>: 5", "#<sex>: F", "#<diagnoses>:", "#Rhythm: Sinus rhythm.", "#Flu."],
            "unknown statement 'Flu'",
        ),
    ],
)
def test_headers_that_leave_doubt(comments, message):
    with pytest.raises(RecordError, match=rf"1\.hea: {message}"):
        read.parse_comments(comments, "1.hea")


def changed(published: Path, tmp_path: Path) -> Path:
    shutil.copytree(published, tmp_path / "source")
    (tmp_path / "source" / "SHA256SUMS.txt").unlink()
    return tmp_path / "source"


def test_annotations_of_another_record_or_of_none(published, tmp_path, capsys):
    source = changed(published, tmp_path)
    write_marks(source / "data" / "102.v1", [(4990, "("), (5001, "N")])
    (source / "data" / "103.avf").unlink()
    (source / "data" / "104.i").write_bytes((source / "data" / "104.i").read_bytes()[:-2])
    assert prepare.main(["ludb", "--source", str(source), "--data_dir", str(tmp_path / "d")]) == 1
    error = capsys.readouterr().err
    assert "102.v1: marks outside the 5000 samples: is it another record's?" in error
    assert "103.avf: no such file" in error and "104.i: truncated" in error
    assert "3 of 6 records can't be used" in error and not (tmp_path / "d").exists()


@pytest.mark.parametrize(
    ("name", "message"), [("other", "no data/*.hea"), ("data", "data/201 is no record of LUDB")]
)
def test_folders_that_are_not_ludb(tmp_path, capsys, name, message):
    folder = tmp_path / "source" / name
    folder.mkdir(parents=True)
    (folder / "201.hea").touch()
    options = ["--source", str(tmp_path / "source"), "--data_dir", str(tmp_path / "d")]
    assert prepare.main(["ludb", *options]) == 2
    assert message in capsys.readouterr().err


def test_division():
    assert sorted(read.FOLD) == list(range(1, 201))
    counts = Counter(read.FOLD.values())
    assert [counts[fold] for fold in range(1, 7)] == [32, 32, 32, 32, 31, 41]


@pytest.mark.real_data
def test_real_database(real_data, build):
    """The counts of wfdb's reading: the publication says 16,797, 21,966 and 19,666."""
    builder = build("ludb", real_data / "ludb", "--rate", "500")
    assert builder.info.metadata["wave_counts"] == {"P": 16_797, "QRS": 21_965, "T": 19_661}
    assert {n: s.num_examples for n, s in builder.info.splits.items()} == {
        **{"train": 128, "validation": 31, "test": 41}
    }
    rhythms, without_p = Counter(), 0
    for split in builder.info.splits:
        for example in builder.as_data_source(split):
            (rhythm,) = np.flatnonzero(example["labels"]["rhythm"])
            rhythms[read.CLASSES["rhythm"][rhythm], int(example["fold"])] += 1
            known = example["segments_mask"]
            assert known.any(axis=0).all() and not example["segments"][~known].any()
            if read.CLASSES["rhythm"][rhythm] in ("AFIB", "AFLT"):
                without_p += not (example["segments"] == 1).any()
    assert sum(n for (rhythm, _), n in rhythms.items() if rhythm == "SR") == 143
    assert without_p >= 17  # of 15 with fibrillation and 3 with flutter
    of_sr = [rhythms["SR", fold] for fold in range(1, 6)]
    assert max(of_sr) - min(of_sr) <= 1
