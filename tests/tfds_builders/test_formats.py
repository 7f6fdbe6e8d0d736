"""Users' files: each format gives the samples that were written, and a damaged file a line."""

import sys
from pathlib import Path

import numpy as np
import pytest
from written_formats import EIGHT, FORMATS, write_all, write_dicom, write_muse

from tfds_builders import formats
from tfds_builders.errors import RecordError
from tfds_builders.formats.placed import place
from tfds_builders.leads import LEADS
from tfds_builders.simulated.simulator import simulate

RATE = 500


@pytest.fixture(scope="module")
def ecg() -> np.ndarray:
    return simulate(np.random.default_rng(0), findings=["NORM", "SR"], seconds=6).ecg_uv


@pytest.fixture(scope="module")
def written(ecg, tmp_path_factory) -> dict[str, tuple[Path, dict]]:
    return write_all(tmp_path_factory.mktemp("formats"), ecg, RATE)


def read(path: Path, stated: dict) -> formats.Found:
    return formats.read(path, formats.Stated(**stated))


@pytest.mark.parametrize("kind", FORMATS)
def test_the_samples_that_were_written(kind, written, ecg):
    found = read(*written[kind])
    assert (found.format, found.rate) == (kind, RATE)
    stored = EIGHT if kind in ("GE MUSE", "SCP-ECG") else LEADS
    assert set(found.names) == set(stored)
    expected = ecg[:, [LEADS.index(name) for name in found.names]]
    np.testing.assert_allclose(found.microvolts[: len(ecg)], expected, atol=1e-3)
    placed = place(found, Path(kind))
    assert placed.lead_mask.all()
    np.testing.assert_allclose(placed.microvolts[: len(ecg)], ecg, atol=1)
    assert found.ecg_samples == len(ecg)  # Philips' calibration pulse is none


@pytest.mark.parametrize("kind", FORMATS)
def test_a_damaged_file_is_a_line(kind, written, tmp_path):
    path, stated = written[kind]
    whole = path.read_bytes()
    damaged = [whole[: len(whole) * part // 100] for part in (0, 1, 30, 99)]
    damaged += [whole[:100] + b"\xff" * 40 + whole[140:], b"\0" * len(whole)]
    copy = tmp_path / path.name
    if kind == "WFDB":
        copy.with_suffix(".dat").write_bytes(path.with_suffix(".dat").read_bytes())
    lines = 0
    for content in damaged:
        copy.write_bytes(content)
        try:
            read(copy, stated)
        except RecordError as error:
            lines += 1
            assert "\n" not in str(error) and str(error).startswith(str(copy)), error
    assert lines >= 5


@pytest.mark.parametrize("kind", ["GE MUSE", "Philips Sierra", "HL7 aECG"])
def test_xml_that_expands_is_refused(kind, written, tmp_path):
    path, _ = written[kind]
    encoding = "utf-16" if kind == "Philips Sierra" else "utf-8"
    text = path.read_text(encoding=encoding)
    start = text.index("<", text.index("?>"))
    tag = text[start + 1 :].split()[0].split(">")[0]
    bomb = f'<!DOCTYPE {tag} [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;">]>'
    copy = tmp_path / "bomb.xml"
    copy.write_text(text[:start] + bomb + text[start:], encoding=encoding)
    with pytest.raises(RecordError, match="entity declarations"):
        formats.read(copy)


def test_a_checksum_that_does_not_hold(written, tmp_path):
    path, _ = written["GE MUSE"]
    copy = tmp_path / "muse.xml"
    copy.write_text(path.read_text().replace("<LeadDataCRC32>", "<LeadDataCRC32>1", 30))
    with pytest.raises(RecordError, match="CRC32 mismatch"):
        formats.read(copy)


def test_a_lead_that_the_recorder_marks_as_off_is_missing(ecg, tmp_path):
    write_muse(tmp_path / "m.xml", ecg, RATE)
    text = (tmp_path / "m.xml").read_text()
    off = text.replace("<LeadID>V3</LeadID>", "<LeadID>V3</LeadID><LeadOff>TRUE</LeadOff>")
    (tmp_path / "m.xml").write_text(off)
    placed = place(formats.read(tmp_path / "m.xml"), Path("m"))
    assert not placed.lead_mask[LEADS.index("V3")] and placed.lead_mask.sum() == 11
    assert "marked as off: V3" in placed.notes


def test_two_dicom_groups_of_one_length_are_no_recording(ecg, tmp_path):
    import pydicom

    write_dicom(tmp_path / "r.dcm", ecg, RATE)
    dataset = pydicom.dcmread(tmp_path / "r.dcm")
    dataset.WaveformSequence = [dataset.WaveformSequence[0]] * 2
    dataset.save_as(tmp_path / "two.dcm")
    with pytest.raises(RecordError, match="2 groups of leads"):
        formats.read(tmp_path / "two.dcm")
    dataset.WaveformSequence = []
    dataset.save_as(tmp_path / "none.dcm")
    with pytest.raises(RecordError, match="without a waveform"):
        formats.read(tmp_path / "none.dcm")


@pytest.mark.parametrize(
    ("stated", "line"),
    [
        ({}, "whose leads are its columns"),
        ({"leads": LEADS}, "gives no rate and no units"),
        ({"leads": LEADS, "rate": 500}, "gives no units"),
        ({"leads": LEADS, "rate": 500, "units": "volts"}, "unit 'volts'"),
        ({"leads": LEADS[:5], "rate": 500, "units": "mV"}, "for 5 leads"),
        ({"leads": LEADS, "rate": -1, "units": "mV"}, "rate of -1 Hz"),
    ],
)
def test_what_numbers_do_not_say(stated, line, written):
    with pytest.raises(RecordError, match=line):
        read(written["NPY"][0], stated)


def test_a_rate_that_contradicts_the_file(written):
    with pytest.raises(RecordError, match="states 500 Hz itself, not 250"):
        read(written["DICOM"][0], {"rate": 250})


def test_arrays_with_objects_are_not_unpickled(tmp_path):
    np.save(tmp_path / "o.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(RecordError, match="not a whole NPY array"):
        read(tmp_path / "o.npy", {"leads": LEADS, "rate": 500, "units": "mV"})


def test_tables(tmp_path):
    path = tmp_path / "r.csv"
    stated = {"rate": 100, "units": "2 uV"}
    path.write_text("I;II;V1\n1;2;\n3;4;\n")
    found = read(path, stated)
    assert found.names == ("I", "II") and found.microvolts.tolist() == [[2, 4], [6, 8]]
    assert found.notes == ("empty columns: V1",) and found.resolution == 2
    for text, line in (("I,II\n1,2\n3,\n", "line 3, II: '' is no number"), ("I,II\n1\n", "cells")):
        path.write_text(text)
        with pytest.raises(RecordError, match=line):
            read(path, stated)


def test_leads_are_placed_by_name():
    def found(names, x):
        return formats.Found(np.asarray(x, float), names, 100.0, "test")

    wave = np.sin(np.arange(200) / 5)[:, None] * [300.0, 500.0, 40.0]
    placed = place(found(("ECG I", "Lead III", "Resp"), wave), Path("r"))
    two = LEADS.index("II")
    np.testing.assert_allclose(placed.microvolts[:, two], wave[:, 0] + wave[:, 1])
    assert placed.derived == ("II", "aVR", "aVL", "aVF") and placed.lead_mask[:6].all()
    assert "no standard leads, left out: Resp" in placed.notes
    with pytest.raises(RecordError, match="lead II occurs twice"):
        place(found(("II", "MLII"), wave[:, :2]), Path("r"))
    with pytest.raises(RecordError, match="no standard lead: it has A, B"):
        place(found(("A", "B"), wave[:, :2]), Path("r"))
    with pytest.raises(RecordError, match="all leads are flat"):
        place(found(("I", "II"), np.ones((200, 2))), Path("r"))


def test_a_package_that_is_missing_is_named(written, monkeypatch):
    for kind, package in (("EDF", "pyedflib"), ("DICOM", "pydicom"), ("SCP-ECG", "ecgdatakit")):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(RecordError, match=rf"package {package}: pip install 'ecg-jax\[formats"):
            read(*written[kind])


def test_what_is_no_recording(tmp_path):
    (tmp_path / "text").write_text("hello")
    (tmp_path / "alone.dat").write_bytes(b"\1\2\3\4")
    for name, line in (("text", "of no known format"), ("none", "no such file")):
        with pytest.raises(RecordError, match=line):
            formats.read(tmp_path / name)
    with pytest.raises(RecordError, match=r"needs its header alone\.hea"):
        formats.read(tmp_path / "alone.dat")
    with pytest.raises(RecordError, match="a folder"):
        formats.read(tmp_path)


CONTEC = {"rate": 800, "units": "0.030518043793392843 mV", "leads": LEADS}
# file -> format, rate in Hz, samples, microvolts of a step, as the folder's README says
VENDORS = {
    "braveheart_example1.xml": ("GE MUSE", 500, 5000, 4.88),
    "braveheart_example2.xml": ("GE MUSE", 500, 5000, 4.88),
    "1_04_01_2020-5-18_15-48-11.xml": ("Philips Sierra", 500, 5500, 5),
    "1_04_3191723_ZZDEMOPTONLY_1-04_orig.xml": ("Philips Sierra", 500, 5500, 5),
    "hl7_example_aecg.xml": ("HL7 aECG", 500, 5000, 2.5),
    "waveform_ecg.dcm": ("DICOM", 1000, 10_000, 1.25),
    "ecgtoolkit_Example.scp": ("SCP-ECG", 500, 5000, 2.5),
    "contec_0000050.ECG.edf": ("EDF", 800, 37_855, 30.518),
    "contec_0000050.ECG.csv": ("CSV", 800, 37_855, 30.518),
}


@pytest.mark.real_data
@pytest.mark.parametrize("name", VENDORS)
def test_files_of_vendors(name, real_data, tmp_path):
    path = real_data / "vendor" / name
    stated = CONTEC if path.suffix == ".csv" else {}
    found = read(path, stated)
    kind, rate, samples, step = VENDORS[name]
    assert (found.format, found.rate, len(found.microvolts)) == (kind, rate, samples)
    assert found.resolution == pytest.approx(step, abs=1e-3)
    assert {"I", "II"} <= set(found.names)
    assert len(found.names) == {"GE MUSE": 8, "CSV": 6}.get(kind, 12)
    placed = place(found, path)
    assert placed.lead_mask.sum() == (6 if "contec" in name else 12)
    whole, copy, lines = path.read_bytes(), tmp_path / name, 0
    for share in (0, 1, 20, 50, 99):
        copy.write_bytes(whole[: len(whole) * share // 100])
        try:
            read(copy, stated)
        except RecordError as error:
            lines += "\n" not in str(error)
    assert lines == 5


@pytest.mark.real_data
def test_files_of_one_recording_agree(real_data):
    folder = real_data / "vendor"
    pairs = [("contec_0000050.ECG.edf", "contec_0000050.ECG.csv")]
    pairs.append(("hl7_example_aecg.xml", "ecgtoolkit_Example.scp"))
    for a, b in pairs:
        one, two = (
            place(read(folder / name, CONTEC if name.endswith("csv") else {}), Path(name))
            for name in (a, b)
        )
        assert (one.lead_mask == two.lead_mask).all()
        steps = 16 if "contec" in a else 1e-6  # EDF's digital zero lies half a step off
        difference = (one.microvolts - two.microvolts)[:, one.lead_mask]
        assert np.abs(difference).max() < steps
