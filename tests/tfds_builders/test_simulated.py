"""The simulator: what a diagnosis says must be measurable in the signal."""

import re
import subprocess
import sys

import numpy as np
import pytest
import scipy.signal
import tensorflow_datasets as tfds
import wfdb.processing

from tfds_builders.build import VERSION
from tfds_builders.errors import RecordError, SourceError
from tfds_builders.leads import LEADS
from tfds_builders.simulated import cases, heart
from tfds_builders.simulated.findings import (
    CODES,
    SUPERCLASSES,
    check_findings,
    compatible,
    draw_findings,
    superclasses,
)
from tfds_builders.simulated.reports import report
from tfds_builders.simulated.simulated_dataset_builder import Builder, SimulatedConfig
from tfds_builders.simulated.simulator import TWELVE_FROM_EIGHT, draw_noise, simulate

SEEDS = range(12)
COLUMN = {lead: i for i, lead in enumerate(LEADS)}


def simulated(seed, *findings, **options):
    return simulate(np.random.default_rng(seed), findings=findings, **options)


def clean(seed, *findings):
    return simulated(seed, *findings, noise=0)


def lead(record, name):
    return record.potentials[:, COLUMN[name]]


def beats_inside(record, kinds="NLR"):
    """Indices of beats that lie in the record with all their waves."""
    inside = (record.fiducials["qrs_onset"] > 0.45) & (record.fiducials["t_end"] < 9.8)
    return np.flatnonzero(inside & np.isin(record.beats[1], list(kinds)))


def level(record, beat, name, fiducial, offset=0.0):
    """Microvolts of a lead at a fiducial, from the level just before QRS."""
    at = round((record.fiducials[fiducial][beat] + offset) * record.rate_hz)
    zero = round(record.fiducials["qrs_onset"][beat] * record.rate_hz) - 2
    return lead(record, name)[at] - lead(record, name)[zero]


def qrs(record, beat, name):
    """Microvolts of a lead over one QRS complex, from the level at its onset."""
    first, last = (
        round(record.fiducials[f][beat] * record.rate_hz) for f in ("qrs_onset", "qrs_offset")
    )
    return lead(record, name)[first:last] - lead(record, name)[first]


def measured_qrs(record, beat):
    """QRS onset and offset, seconds, by the speed of the leads relative to its peak.

    Before the first steep part the leads rest; after the last they only slow down, to ST and T.
    """
    independent = record.potentials[:, [COLUMN[name] for name in heart.INDEPENDENT_LEADS]]
    speed = np.linalg.norm(np.gradient(independent, axis=0), axis=1)
    peak = record.beats[0][beat]
    speed /= speed[peak - 60 : peak + 80].max()
    steep = np.flatnonzero(speed[peak - 60 : peak + 80] > 0.18) + peak - 60
    first = steep[0] - np.argmax(speed[steep[0] :: -1] < 0.06)
    last = steep[-1] + np.argmax(speed[steep[-1] :] < 0.12)
    return first / record.rate_hz, last / record.rate_hz


def measured_p_onset(record, beat):
    """Seconds: back from the last peak before QRS to where the leads leave zero."""
    independent = record.potentials[:, [COLUMN[name] for name in heart.INDEPENDENT_LEADS]]
    size = np.linalg.norm(independent, axis=1)
    end = round(measured_qrs(record, beat)[0] * record.rate_hz)
    peaks, _ = scipy.signal.find_peaks(size[: end - 15], height=60)
    return (peaks[-1] - np.argmax(size[peaks[-1] :: -1] < 15)) / record.rate_hz


def irregularity(intervals):
    """Interquartile range over median, so that a detector's odd extra beat does not count."""
    low, middle, high = np.percentile(intervals, (25, 50, 75))
    return (high - low) / middle


def test_limb_leads_obey_einthoven_and_goldberger():
    record = simulated(3, "SR", "PVC", "LVH")
    one, two = lead(record, "I"), lead(record, "II")
    expected = {
        "III": two - one,
        "aVR": -(one + two) / 2,
        "aVL": one - two / 2,
        "aVF": two - one / 2,
    }
    for name, values in expected.items():
        np.testing.assert_allclose(lead(record, name), values, atol=1e-9)
    rounded = record.ecg_uv.astype(int)
    assert record.ecg_uv.dtype == np.int16 and record.ecg_uv.shape == (5000, 12)
    assert np.abs(rounded[:, 2] - (rounded[:, 1] - rounded[:, 0])).max() <= 1


def test_lead_field_is_dowers():
    """The rows that Dower's table gives for the other limb leads follow from I and II."""
    twelve = TWELVE_FROM_EIGHT @ heart.DOWER
    published = {
        "III": (-0.397, 1.301, -0.191),
        "aVR": (-0.434, -0.415, 0.037),
        "aVL": (0.515, -0.768, 0.125),
        "aVF": (-0.081, 1.184, -0.162),
        "V2": (0.044, 0.164, -1.387),
    }
    for name, row in published.items():
        np.testing.assert_allclose(twelve[COLUMN[name]], row, atol=1.1e-3)


@pytest.mark.parametrize(
    ("rhythm", "low", "high"), [("SR", 60, 100), ("SBRAD", 0, 60), ("STACH", 100, 200)]
)
def test_rate_lies_where_the_diagnosis_says(rhythm, low, high):
    for seed in SEEDS:
        record = simulated(seed, rhythm)
        found = wfdb.processing.xqrs_detect(lead(record, "V5"), 500, verbose=False)[
            2:
        ]  # it learns on the first
        rate = 60 * 500 / np.median(np.diff(found))
        assert low < rate < high
        assert abs(rate / (60 * 500 / np.median(np.diff(record.beats[0]))) - 1) < 0.03
        assert irregularity(np.diff(found)) < 0.07


def test_atrial_fibrillation_is_irregular_and_without_p():
    for seed in SEEDS:
        record = simulated(seed, "AFIB")
        found = wfdb.processing.xqrs_detect(lead(record, "V5"), 500, verbose=False)[
            2:
        ]  # it learns on the first
        assert irregularity(np.diff(found)) > 0.09
        assert np.isnan(record.fiducials["p_onset"]).all()


def test_fibrillation_waves_lie_between_4_and_9_hz():
    """They are what a fibrillating heart has in V1 outside QRS and T, and a sinus rhythm lacks."""
    for seed in SEEDS:
        fibrillating, sinus = (quiet(clean(seed, rhythm)) for rhythm in ("AFIB", "SBRAD"))
        assert fibrillating.std() > 15 > 3 > sinus[:, :30].std()
        turns = (np.diff(np.sign(np.diff(fibrillating, axis=1)), axis=1) != 0).sum(axis=1)
        hertz = turns / 2 / 0.2
        assert 3 < hertz.mean() < 13  # a little sharper than a sine: 4.5-8 Hz and its harmonic


def quiet(record, samples=100):
    """V1 from 60 ms after T, where the next QRS is far enough: [beats, samples]."""
    ends = np.rint((record.fiducials["t_end"] + 0.06) * 500).astype(int)[:-1]
    room = np.rint(record.fiducials["qrs_onset"] * 500).astype(int)[1:] - ends
    return np.stack([lead(record, "V1")[e : e + samples] for e in ends[room > samples]])


@pytest.mark.parametrize("rhythm", ["SR", "SBRAD", "STACH", "AFIB"])
def test_detector_finds_the_annotated_beats(rhythm):
    near = []
    for seed in SEEDS:
        record = simulated(seed, rhythm)
        peaks = record.beats[0]
        # wfdb's detector learns on the first beats and drops what lies at the edges.
        peaks = peaks[(peaks > 250) & (peaks < 4800)]
        found = wfdb.processing.xqrs_detect(lead(record, "V5"), 500, verbose=False)
        near.extend(np.abs(peaks[:, None] - found).min(axis=1) < 40)
    assert np.mean(near) > 0.97


@pytest.mark.parametrize(
    ("findings", "pr", "width"),
    [
        (("SR", "NORM"), (110, 200), (65, 120)),
        (("SBRAD", "NORM"), (110, 200), (65, 120)),
        (("SR", "1AVB"), (200, 330), (65, 120)),
        (("SBRAD", "1AVB"), (200, 330), (65, 120)),
        (("SR", "CLBBB"), (110, 200), (120, 185)),
        (("SR", "CRBBB"), (110, 200), (120, 185)),
        (("SR", "LVH"), (110, 200), (65, 120)),
        (("SR", "IMI"), (110, 200), (65, 120)),
        (("SR", "ASMI"), (110, 200), (65, 120)),
    ],
)
def test_intervals_lie_where_the_diagnosis_says(findings, pr, width):
    """In ms, of the known fiducials and as measured on the noise-free signal."""
    for seed in SEEDS:
        record = clean(seed, *findings)
        beat = beats_inside(record)[1]
        known = {name: 1000 * values[beat] for name, values in record.fiducials.items()}
        assert pr[0] < known["qrs_onset"] - known["p_onset"] < pr[1]
        assert width[0] < known["qrs_offset"] - known["qrs_onset"] < width[1]
        onset, offset = (1000 * t for t in measured_qrs(record, beat))
        assert width[0] < offset - onset < width[1]
        assert pr[0] < onset - 1000 * measured_p_onset(record, beat) < pr[1]
        assert abs(onset - known["qrs_onset"]) < 14


def test_first_degree_block_at_a_fast_rate():
    for seed in SEEDS:
        record = clean(seed, "STACH", "1AVB")
        pr = record.fiducials["qrs_onset"] - record.fiducials["p_onset"]
        assert (pr > 0.2).all() and (pr < 0.26).all()


def test_left_bundle_branch_block():
    for seed in SEEDS:
        record = clean(seed, "SR", "CLBBB")
        beat = beats_inside(record)[1]
        v1, v6 = qrs(record, beat, "V1"), qrs(record, beat, "V6")
        assert -v1.min() > 10 * v1.max()  # QS or a tiny r
        assert v6.min() > -30 and v6.max() > 400  # no septal q
        assert level(record, beat, "V6", "t_end", -0.086) < -50  # T opposed
        assert set(record.beats[1]) == {"L"}


def test_right_bundle_branch_block():
    for seed in SEEDS:
        record = clean(seed, "SR", "CRBBB")
        beat = beats_inside(record)[1]
        v1 = qrs(record, beat, "V1")
        assert v1.argmax() > len(v1) / 2 and v1.max() > 300  # late R'
        for name in ("I", "V6"):
            late = qrs(record, beat, name)[len(v1) // 2 :]
            assert late.min() < -100  # broad S
        assert set(record.beats[1]) == {"R"}


def test_st_segments():
    """Microvolts 60 ms after the J point."""
    for seed in SEEDS:
        for rhythm in ("SR", "STACH"):
            raised, lowered = clean(seed, rhythm, "STE_"), clean(seed, rhythm, "STD_")
            normal = clean(seed, rhythm, "NORM")
            beat = beats_inside(normal)[1]
            for name in ("V2", "V3"):
                assert level(raised, beat, name, "qrs_offset", 0.06) > 200
                assert -50 < level(normal, beat, name, "qrs_offset", 0.06) < 190
            assert level(raised, beat, "V1", "qrs_offset", 0.06) > 100
            for name, limit in (("I", -50), ("V5", -100), ("V6", -75)):
                assert level(lowered, beat, name, "qrs_offset", 0.06) < limit
                assert -50 < level(normal, beat, name, "qrs_offset", 0.06) < 190


def test_t_waves():
    for seed in SEEDS:
        inverted, normal = clean(seed, "SR", "INVT"), clean(seed, "SR", "NORM")
        beat = beats_inside(normal)[1]
        for name in ("I", "V5", "V6"):
            assert level(inverted, beat, name, "t_end", -0.086) < -100
            assert level(normal, beat, name, "t_end", -0.086) > 0


def test_sokolow_lyon_tells_hypertrophy():
    for seed in SEEDS:
        for findings, low, high in (
            (("SR", "LVH"), 3500, 6000),
            (("SR", "LVH", "IMI"), 3500, 6000),
            (("SR", "NORM"), 1000, 3500),
        ):
            record = clean(seed, *findings)
            beat = beats_inside(record)[1]
            r = max(qrs(record, beat, name).max() for name in ("V5", "V6"))
            assert low < r - qrs(record, beat, "V1").min() < high


def test_old_infarctions():
    for seed in SEEDS:
        inferior, normal = clean(seed, "SR", "IMI"), clean(seed, "SR", "NORM")
        septal, both = clean(seed, "SR", "ASMI"), clean(seed, "SR", "CRBBB", "ASMI")
        beat = beats_inside(normal)[1]
        for name in ("II", "III", "aVF"):
            complex_ = qrs(inferior, beat, name)
            q = np.argmax(complex_[5:] > 0) + 5 if (complex_[5:] > 0).any() else len(complex_)
            assert 2 * q >= 30 and complex_.min() < -100  # ms, microvolts
        assert qrs(septal, beat, "V2").max() < 30  # QS
        assert qrs(normal, beat, "V2").max() > 150
        first = qrs(both, beat, "V2")[:20]
        assert first.min() < -100 and first.max() < 50


@pytest.mark.parametrize("rhythm", ["SR", "SBRAD", "STACH", "AFIB"])
def test_ventricular_premature_beats(rhythm):
    for seed in SEEDS:
        record = clean(seed, rhythm, "PVC")
        (premature,) = np.nonzero(record.beats[1] == "V")
        assert len(premature) >= 1
        assert np.isnan(record.fiducials["p_onset"][premature]).all()
        width = record.fiducials["qrs_offset"] - record.fiducials["qrs_onset"]
        assert (width[premature] > 0.12).all()
        rr = np.diff(record.fiducials["qrs_onset"])
        usual = np.median(rr)
        for beat in premature[(premature > 0) & (premature < len(rr))]:
            assert rr[beat - 1] < 0.8 * rr[beat] and rr[beat - 1] < 0.95 * max(usual, 0.5)


def test_atrial_premature_beats():
    for seed in SEEDS:
        record = clean(seed, "SBRAD", "PAC")
        (premature,) = np.nonzero(record.beats[1] == "A")
        assert len(premature) >= 1
        assert np.isfinite(record.fiducials["p_onset"][premature]).all()
        rr = np.diff(record.fiducials["qrs_onset"])
        for beat in premature[premature > 0]:
            assert rr[beat - 1] < 0.85 * np.median(rr)


def test_both_kinds_of_premature_beats_in_the_shortest_record():
    for seed in range(40):
        record = simulated(seed, "SBRAD", "PAC", "PVC", seconds=6, rate_hz=100)
        assert {"A", "V"} <= set(record.beats[1])


def test_rates_agree():
    """Simulated at 100 Hz, a record is what low-pass and decimation make of it at 500 Hz."""
    for seed in SEEDS:
        slow = simulated(seed, "SR", "PVC", rate_hz=100, noise=0)
        fast = simulated(seed, "SR", "PVC", rate_hz=500, noise=0)
        assert np.corrcoef(lead(slow, "II"), lead(fast, "II")[::5])[0, 1] > 0.97
        np.testing.assert_allclose(slow.fiducials["r"], fast.fiducials["r"])


def test_noise_changes_neither_beats_nor_waves():
    quiet, noisy = simulated(5, "SR", "PVC", noise=0), simulated(5, "SR", "PVC")
    np.testing.assert_array_equal(quiet.beats[0], noisy.beats[0])
    difference = noisy.potentials - quiet.potentials
    noise = difference[:, [COLUMN[name] for name in heart.INDEPENDENT_LEADS]]
    assert noise.std() > 3
    np.testing.assert_allclose(
        simulated(5, "SR", "PVC", noise=2).potentials, noisy.potentials + difference, atol=1e-6
    )


def test_noise_bands():
    """Wander below 0.5 Hz, a line at 50 or 60 Hz, the rest above the muscles' 15 Hz."""
    peaks = []
    for seed in SEEDS:
        noise = draw_noise(np.random.default_rng(seed), 10_000, 500)
        power = (np.abs(np.fft.rfft(noise * np.hanning(10_000)[:, None], axis=0)) ** 2).sum(1)
        hertz = np.fft.rfftfreq(10_000, 1 / 500)
        between = power[(hertz > 1) & (hertz < 6)].sum()
        assert power[hertz < 0.5].sum() > 20 * between
        lines = {mains: power[np.abs(hertz - mains) < 0.3].max() for mains in (50, 60)}
        peaks.append(max(lines, key=lines.get))
        assert max(lines.values()) > 4 * np.median(power[(hertz > 40) & (hertz < 70)])
    assert set(peaks) == {50, 60}


def test_every_class_is_frequent_enough():
    rng = np.random.default_rng(0)
    draws = [draw_findings(rng) for _ in range(3000)]
    for findings in draws:
        assert check_findings(findings) == findings
        assert "NORM" in findings or superclasses(findings) or findings & {"AFIB", "PAC", "PVC"}
    for code in CODES:
        assert np.mean([code in findings for findings in draws]) >= 0.05, code
    for name in SUPERCLASSES:
        assert np.mean([name in superclasses(findings) for findings in draws]) >= 0.05, name


@pytest.mark.parametrize(
    ("findings", "says"),
    [
        ({"SR", "XYZ"}, "unknown findings"),
        ({"NORM"}, "exactly one rhythm"),
        ({"SR", "AFIB"}, "exactly one rhythm"),
        ({"SR", "CLBBB", "CRBBB"}, "exclude each other"),
        ({"AFIB", "1AVB"}, "exclude each other"),
        ({"SR", "NORM", "LVH"}, "exclude each other"),
        ("SR", "not one string"),
    ],
)
def test_contradictory_findings_are_refused(findings, says):
    with pytest.raises(RecordError, match=says):
        simulated(0, *findings) if not isinstance(findings, str) else check_findings(findings)


def test_compatibility_is_symmetric():
    for a in CODES:
        for b in CODES:
            assert compatible(a, b) == compatible(b, a)


@pytest.mark.parametrize("options", [{"seconds": 3}, {"rate_hz": 20}])
def test_too_short_or_slow_is_refused(options):
    with pytest.raises(RecordError, match="at least 6 s at 50 Hz"):
        simulated(0, "SR", **options)


STATED = {
    "en": {
        "SR": "sinus rhythm",
        "SBRAD": "bradycardia",
        "STACH": "tachycardia",
        "AFIB": "atrial fibrillation",
        "PAC": "premature atrial",
        "PVC": "premature ventricular",
        "1AVB": "first degree av block|prolonged pr",
        "CLBBB": "left bundle branch block",
        "CRBBB": "right bundle branch block",
        "STE_": "st elevation|elevated",
        "STD_": "st segment.* depress",
        "INVT": "t waves? (are )?inver",
        "LVH": "left ventricular hypertrophy",
        "IMI": "inferior +myocardial infarction",
        "ASMI": "anteroseptal +myocardial infarction",
        "NORM": r"\bnormal ecg",
    },
    "de": {
        "SR": "sinusrhythmus",
        "SBRAD": "bradykardie",
        "STACH": "tachykardie",
        "AFIB": "vorhofflimmern",
        "PAC": "supraventrikulÄre extrasystole",
        "PVC": r"(?<!supra)ventrikulÄre extrasystole",
        "1AVB": "block i|block 1",
        "CLBBB": "linksschenkelblock",
        "CRBBB": "rechtsschenkelblock",
        "STE_": "st-hebung",
        "STD_": "st-senkung",
        "INVT": r"t neg|neg\. t",
        "LVH": "linkshypertrophie|linksventrikulÄre hypertrophie",
        "IMI": "inferiorer infarkt",
        "ASMI": "anteroseptaler infarkt",
        "NORM": "normales ekg",
    },
}


@pytest.mark.parametrize("language", ["en", "de"])
def test_reports_state_every_finding_and_no_other(language):
    rng = np.random.default_rng(1)
    texts = set()
    for _ in range(600):
        findings = draw_findings(rng)
        text = report(rng, findings, language)
        texts.add(text)
        for code, pattern in STATED[language].items():
            assert bool(re.search(pattern, text)) == (code in findings), (code, text)
        assert not set(re.findall(r"[\w_]+", text.upper())) & set(CODES)
    assert len(texts) > 150


def test_reports_come_in_both_languages():
    rng = np.random.default_rng(2)
    texts = [report(rng, {"SR", "NORM"}) for _ in range(200)]
    assert set(texts) == {"sinus rhythm. normal ecg.", "sinusrhythmus normales ekg"}
    assert 0.4 < np.mean([text.startswith("sinusr") for text in texts]) < 0.8


def test_reports_refuse_what_they_cannot_word():
    with pytest.raises(RecordError, match="language 'sv'"):
        report(np.random.default_rng(0), {"SR"}, "sv")
    with pytest.raises(RecordError, match="no wording for"):
        report(np.random.default_rng(0), {"PACE"})


def test_cases_are_the_same_whatever_is_made_with_them():
    few, many = cases.draw_cases(30, 7), cases.draw_cases(300, 7)
    assert many[:30] == few
    again, text = cases.make(many[20], 100)
    first, same = cases.make(few[20], 100)
    np.testing.assert_array_equal(again.ecg_uv, first.ecg_uv)
    assert text == same
    other, _ = cases.make(cases.draw_cases(30, 8)[20], 100)
    assert not np.array_equal(other.ecg_uv, first.ecg_uv)
    folds = {}
    for case in many:
        assert folds.setdefault(case.patient, case.fold) == case.fold
    assert set(folds.values()) == set(range(1, 11))
    assert 0.08 < 1 - len(folds) / 300 < 0.2
    with pytest.raises(RecordError, match="at least 1"):
        cases.draw_cases(0, 7)


def test_records_do_not_depend_on_the_process():
    code = (
        "import hashlib; from tfds_builders.simulated import cases\n"
        "made = [cases.make(case, 100) for case in cases.draw_cases(12, 3)]\n"
        "data = b''.join(s.ecg_uv.tobytes() + text.encode() for s, text in made)\n"
        "print(hashlib.sha256(data).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    builder = Builder(config="rate100", data_dir=tmp_path_factory.mktemp("data"))
    builder.num_records = 60
    builder.download_and_prepare()
    return builder


def test_builder_writes_the_schema(prepared):
    info = prepared.info
    assert prepared.data_path.as_posix().endswith(f"simulated/rate100/{VERSION}")
    stored = tfds.builder_from_directory(prepared.data_path)
    metadata = stored.info.metadata
    assert metadata["rate"] == 100 and metadata["units"] == "uV"
    assert metadata["leads"] == list(LEADS) and metadata["records"] == 60
    assert metadata["classes"] == {"findings": list(CODES), "super": list(SUPERCLASSES)}
    assert set(CODES) | set(SUPERCLASSES) <= set(metadata["descriptions"])
    assert set(info.splits) == {"train", "validation", "test"}
    assert sum(split.num_examples for split in info.splits.values()) == 60

    patients, made = {}, {str(case.record): case for case in cases.draw_cases(60, 0)}
    folds = {"train": range(1, 9), "validation": (9,), "test": (10,)}
    for split in folds:
        for example in stored.as_data_source(split):
            case = made.pop(example["record_id"].decode())
            assert example["fold"] == case.fold and case.fold in folds[split]
            assert patients.setdefault(example["patient_id"], split) == split
            record, text = cases.make(case, 100)
            assert example["ecg"].dtype == np.int16
            np.testing.assert_array_equal(example["ecg"], record.ecg_uv)
            assert example["lead_mask"].dtype == np.bool_ and example["lead_mask"].all()
            assert example["report"].decode() == text
            for task, present in (
                ("findings", record.findings),
                ("super", superclasses(record.findings)),
            ):
                classes = metadata["classes"][task]
                assert example["labels"][task].dtype == np.uint8
                labelled = {classes[i] for i in np.flatnonzero(example["labels"][task])}
                assert labelled == present
    assert not made


def test_builder_notices_another_number_of_records(prepared):
    again = Builder(config="rate100", data_dir=prepared.data_dir.split("/simulated/")[0])
    again.num_records = 60
    with pytest.raises(SourceError, match="holds 60 records, not 61"):
        again.num_records = 61


def test_builder_configs():
    assert {c.name: (c.rate, c.records) for c in Builder.BUILDER_CONFIGS} == {
        "rate500": (500, 3000),
        "rate100": (100, 3000),
    }
    assert SimulatedConfig(name="x", rate=100, records=5, seed=2).seed == 2
