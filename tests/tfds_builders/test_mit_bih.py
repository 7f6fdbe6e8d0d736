"""MIT-BIH: windows, leads, beats, rhythms, the inter-patient division."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import wfdb

from ecg_jax.data import records
from ecg_jax.errors import UserError
from tfds_builders import prepare
from tfds_builders.annotations import read_annotations
from tfds_builders.errors import RecordError
from tfds_builders.leads import LEADS
from tfds_builders.mit_bih import read
from tfds_builders.mit_bih.mit_bih_dataset_builder import SPLITS
from tfds_builders.simulated.layouts import write_mit_bih

# AAMI EC57 as published in tables, written out again.
AAMI = {"N": "NLRej", "S": "AaJS", "V": "VE", "F": "F", "Q": "/fQ"}
BEATS = set("".join(AAMI.values()))


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("mitdb")
    write_mit_bih(folder, seconds=35)
    return folder


def annotation(folder: Path, name: str) -> wfdb.Annotation:
    return wfdb.rdann(str(folder / name), "atr")


@pytest.mark.parametrize("rate", [100, 500])
def test_windows(published, build, examples, rate):
    builder = build("mit_bih", published, "--rate", str(rate))
    found = examples(builder)
    names = sorted(path.stem for path in published.glob("*.hea"))
    assert set(found) == {f"{name}_{i:03d}" for name in names for i in range(4)}
    split_of = {str(record): split for split, records in SPLITS.items() for record in records}
    for key, (split, example) in found.items():
        name, index = key.split("_")
        assert split == split_of[name]
        assert len(example["ecg"]) == (10 * rate if index != "003" else 5 * rate)
        header = wfdb.rdheader(str(published / name))
        placed = {lead.replace("MLII", "II") for lead in header.sig_name}
        there = {lead for lead, mask in zip(LEADS, example["lead_mask"], strict=True) if mask}
        assert there == placed
        assert not example["ecg"][:, ~example["lead_mask"]].any()
        assert example["ecg"][:, example["lead_mask"]].any(axis=0).all()
    assert found["201_000"][1]["patient_id"] == found["202_000"][1]["patient_id"] == b"201"
    assert found["201_000"][0] == "ds1_subject_of_202" and found["202_000"][0] == "test"


def test_signal_is_that_of_the_record_without_seams(published, build, examples):
    found = examples(build("mit_bih", published, "--rate", "500"))
    record = wfdb.rdrecord(str(published / "114"))
    assert record.sig_name == ["V5", "MLII"]
    parts = [found[f"114_{i:03d}"][1]["ecg"] for i in range(4)]
    whole = np.concatenate(parts)[:, [LEADS.index("V5"), LEADS.index("II")]]
    old, new = np.arange(record.sig_len) / 360, np.arange(len(whole)) / 500
    for lead in range(2):
        expected = np.interp(new, old, 1000 * record.p_signal[:, lead])
        error = np.abs(whole[:, lead] - expected)[500:-500]
        assert np.median(error) < 0.05 * expected.std()
        assert np.corrcoef(whole[:, lead], expected)[0, 1] > 0.99


def test_a_part_of_a_window_would_have_labels_of_the_rest(published, build, tmp_path):
    build("mit_bih", published, "--rate", "100")
    with pytest.raises(UserError, match=r"anywhere in windows of 10 s, and 5 s of each .*=10"):
        records.load(tmp_path / "data", "mit_bih", 100, "validation", seconds=5.0)


def test_every_beat_is_in_one_window_at_its_place(published, build, examples):
    builder = build("mit_bih", published, "--rate", "100")
    found, symbols = examples(builder), builder.info.metadata["beat_symbols"]
    total = Counter()
    for name in sorted(path.stem for path in published.glob("*.hea")):
        published_beats = [
            (sample, symbol)
            for sample, symbol in zip(
                annotation(published, name).sample, annotation(published, name).symbol, strict=True
            )
            if symbol in BEATS
        ]
        ours = []
        for index in range(4):
            example = found[f"{name}_{index:03d}"][1]
            ours += [
                (index * 1000 + sample, symbols[symbol])
                for sample, symbol in zip(
                    example["beat_sample"], example["beat_symbol"], strict=True
                )
            ]
            here = {symbols[symbol] for symbol in example["beat_symbol"]}
            expected = [bool(here & set(members)) for members in AAMI.values()]
            assert example["labels"]["aami"].tolist() == expected
        assert [symbol for _, symbol in ours] == [symbol for _, symbol in published_beats]
        for (sample, _), (original, _) in zip(ours, published_beats, strict=True):
            assert abs(sample - original / 3.6) <= 1
        total.update(symbol for _, symbol in published_beats)
    assert +Counter(builder.info.metadata["beat_counts"]) == total


def write_annotated(folder: Path, annotations: list[tuple[int, str, str]], name: str = "100"):
    samples, codes, notes = zip(*annotations, strict=True)
    wfdb.wrann(name, "atr", np.array(samples), list(codes), aux_note=list(notes), write_dir=folder)
    wfdb.wrsamp(
        name,
        fs=360,
        units=["mV"] * 2,
        sig_name=["MLII", "V1"],
        d_signal=np.random.default_rng(0).integers(-100, 100, (25 * 360, 2)),
        fmt=["212"] * 2,
        adc_gain=[200.0] * 2,
        baseline=[0] * 2,
        write_dir=str(folder),
    )
    return folder / name


def test_rhythms_hold_until_the_next_and_windows_keep_their_own_beats(tmp_path):
    stem = write_annotated(
        tmp_path,
        [
            (20, "+", "(N\0"),
            (0 + 300, "N", ""),
            (3599, "V", ""),
            (3600, "A", ""),
            (4000, "+", "(AFIB"),
            (5000, "~", ""),
            (7200, "+", "(VT"),
            (7300, "x", ""),
            (8999, "F", ""),
        ],
    )
    windows = read.examples(stem, "100", 1, 100, {})
    rhythms = [
        [code for code, on in zip(read.RHYTHMS, w["labels"]["rhythm"], strict=True) if on]
        for w in windows
    ]
    assert rhythms == [["NSR"], ["NSR", "AFIB"], ["VT"]]
    assert [w["beat_sample"].tolist() for w in windows] == [[83, 999], [0], [499]]
    assert [w["labels"]["aami"].tolist() for w in windows] == [
        [1, 0, 1, 0, 0],
        [0, 1, 0, 0, 0],
        [0, 0, 0, 1, 0],
    ]
    assert [len(w["ecg"]) for w in windows] == [1000, 1000, 500]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ((8000, "+", "(WHAT"), r"100\.atr: unknown rhythm '\(WHAT'"),
        ((8000, "B", ""), r"100\.atr: beat 'B' at sample 8000 has no AAMI class here"),
        ((9001, "+", "(N"), r"100\.atr: annotates rhythms outside the 9000 samples"),
        ((9001, "N", ""), r"100\.atr: annotates beats outside the 9000 samples"),
    ],
)
def test_annotations_that_leave_doubt_are_refused(tmp_path, extra, message):
    stem = write_annotated(tmp_path, [(20, "+", "(N"), (300, "N", ""), extra])
    with pytest.raises(RecordError, match=message):
        read.examples(stem, "100", 1, 100, {})


def test_truncated_and_missing_annotations_are_refused(tmp_path):
    stem = write_annotated(tmp_path, [(20, "+", "(N"), (300, "N", ""), (900, "N", "")])
    path = stem.with_suffix(".atr")
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(RecordError, match=r"100\.atr: truncated"):
        read.examples(stem, "100", 1, 100, {})
    path.unlink()
    with pytest.raises(RecordError, match=r"100\.atr: no such file"):
        read.examples(stem, "100", 1, 100, {})


def test_a_code_that_there_is_not(tmp_path):
    stem = write_annotated(tmp_path, [(20, "+", "(N"), (300, "N", "")])
    path = stem.with_suffix(".atr")
    one, none = ((code << 10 | 280).to_bytes(2, "little") for code in (1, 15))
    assert path.read_bytes().count(one) == 1
    path.write_bytes(path.read_bytes().replace(one, none))
    with pytest.raises(RecordError, match="mark at sample 300 has a code that WFDB lacks"):
        read_annotations(stem, "atr", 360)


@pytest.mark.parametrize(
    "notes",
    [
        ["## what"],
        ["## end of definitions"],
        ["## time resolution: 360", "## time resolution: 360"],
        ["## annotation type definitions", "42 x y"],
    ],
)
def test_notes_about_the_file_that_are_none(tmp_path, notes):
    """At some of them wfdb 4.3.1 would read the same note for ever."""
    stem = write_annotated(tmp_path, [(20, "+", "(N"), (300, "N", "")])
    path = stem.with_suffix(".atr")
    good = path.read_bytes()
    path.write_bytes(b"".join(map(note, ["## time resolution: 360"])) + good)
    as_before = read_annotations(stem, "atr", 360)
    assert [mark.sample for mark in as_before] == [20, 300]
    path.write_bytes(b"".join(map(note, notes)) + good)
    with pytest.raises(RecordError, match=r"100\.atr: unreadable annotations \(a note after ##"):
        read_annotations(stem, "atr", 360)


def note(text):
    """A note about the file: at sample 0, of code 22, and the note's own word."""
    return bytes([0, 22 << 2, len(text), 63 << 2]) + text.encode() + b"\0" * (len(text) % 2)


def test_annotations_that_say_nothing(tmp_path):
    stem = write_annotated(tmp_path, [(20, "+", "(N"), (300, "N", "")])
    path = stem.with_suffix(".atr")
    path.write_bytes(b"\0\0")
    with pytest.raises(RecordError, match=r"100\.atr: holds no annotations"):
        read.examples(stem, "100", 1, 100, {})
    write_annotated(tmp_path, [(20, "+", "(N")])
    with pytest.raises(RecordError, match=r"100\.atr: annotates no beats"):
        read.examples(stem, "100", 1, 100, {})


def test_division_is_de_chazals_but_for_record_201():
    ds1 = "101 106 108 109 112 114 115 116 118 119 122 124 201 203 205 207 208 209 215 220 223 230"
    ds2 = "100 103 105 111 113 117 121 123 200 202 210 212 213 214 219 221 222 228 231 232 233 234"
    of = {split: set(map(str, records)) for split, records in SPLITS.items()}
    assert of["train"] | of["validation"] | of["ds1_subject_of_202"] == set(ds1.split())
    assert of["test"] == set(ds2.split())
    assert of["paced"] == {"102", "104", "107", "217"}
    assert sum(map(len, of.values())) == 48 == len(set.union(*of.values()))


def test_folders_that_are_not_mit_bih_are_refused(tmp_path, published, capsys):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "readme").touch()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "099.hea").touch()
    arguments = ["--data_dir", str(tmp_path / "data")]
    assert prepare.main(["mit_bih", "--source", str(tmp_path / "a"), *arguments]) == 2
    assert prepare.main(["mit_bih", "--source", str(tmp_path / "b"), *arguments]) == 2
    error = capsys.readouterr().err
    assert "a: no *.hea" in error and "099 are no records of MIT-BIH" in error


@pytest.mark.real_data
def test_real_database(real_data, build):
    source = real_data / "mitdb"
    builder = build("mit_bih", source, "--rate", "100")
    counts = builder.info.metadata["beat_counts"]
    symbols = builder.info.metadata["beat_symbols"]
    windows, per_record = Counter(), Counter()
    for split in builder.info.splits:
        for example in builder.as_data_source(split):
            windows.update(symbols[index] for index in example["beat_symbol"].tolist())
            per_record[example["record_id"].decode()[:3]] += 1
            assert (example["beat_sample"] < len(example["ecg"])).all()
    files = Counter()
    for record in sorted({path.stem for path in source.glob("*.hea")}):
        files.update(s for s in annotation(source, record).symbol if s in BEATS)
    assert per_record == {record: 181 for record in per_record} and len(per_record) == 48
    assert +Counter(counts) == windows == files
    published = {"N": 75052, "L": 8075, "R": 7259, "V": 7130, "/": 7028, "A": 2546}
    assert {symbol: windows[symbol] for symbol in published} == published


@pytest.mark.real_data
def test_real_r_peaks_are_where_the_annotation_says(real_data):
    """At either rate, V beats of record 119 stand out in lead II at their samples."""
    for rate in (100, 500):
        peaks = []
        for window in read.examples(real_data / "mitdb" / "119", "119", 1, rate, {})[:20]:
            ecg = np.abs(window["ecg"][:, LEADS.index("II")] - np.median(window["ecg"][:, 1]))
            for sample in window["beat_sample"]:
                near = ecg[max(0, sample - rate // 10) : sample + rate // 10]
                peaks.append(near.max() > 3 * np.median(ecg))
        assert len(peaks) > 200 and np.mean(peaks) > 0.95
