"""Writes one recording in the formats of users' files: int16 microvolts [T, 12], leads in order."""

import base64
import binascii
import struct
import zlib
from pathlib import Path

import numpy as np

from tfds_builders.leads import LEADS
from tfds_builders.simulated.wfdb_files import write_format_16, write_header

EIGHT = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")  # what MUSE and SCP-ECG files store


def _eight(ecg: np.ndarray) -> np.ndarray:
    return ecg[:, [LEADS.index(lead) for lead in EIGHT]]


def write_wfdb(path: Path, ecg: np.ndarray, rate: int) -> None:
    write_header(path, rate, ecg, LEADS, ".dat 16 1(0)/uV 16 0", signed_checksum=True)
    write_format_16(path.with_suffix(".dat"), ecg)


def write_csv(path: Path, ecg: np.ndarray, rate: int) -> None:
    rows = [LEADS, *(map(str, row) for row in ecg.tolist())]
    path.write_text("\n".join(map(",".join, rows)) + "\n")


def write_npy(path: Path, ecg: np.ndarray, rate: int) -> None:
    np.save(path, (ecg / 1000).astype(np.float32).T)  # mV, leads first


def write_edf(path: Path, ecg: np.ndarray, rate: int) -> None:
    import pyedflib

    bdf = path.suffix == ".bdf"
    kind = pyedflib.FILETYPE_BDF if bdf else pyedflib.FILETYPE_EDF
    largest = 32767 * (2**8 if bdf else 1)
    with pyedflib.EdfWriter(str(path), ecg.shape[1], file_type=kind) as file:
        for i, lead in enumerate(LEADS):
            limits = {"digital_min": -largest, "digital_max": largest}
            limits |= {"physical_min": -32767, "physical_max": 32767}
            header = {"label": f"ECG {lead}", "dimension": "uV", "sample_frequency": rate}
            file.setSignalHeader(i, header | limits | {"transducer": "", "prefilter": ""})
        file.writeSamples([column.astype(np.float64) for column in ecg.T])


def write_dicom(path: Path, ecg: np.ndarray, rate: int) -> None:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    def code(value: str, scheme: str, meaning: str) -> Dataset:
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
        return item

    def group(samples: np.ndarray, label: str) -> Dataset:
        item = Dataset()
        item.MultiplexGroupLabel = label
        item.WaveformOriginality = "DERIVED" if label == "MEDIAN BEAT" else "ORIGINAL"
        item.NumberOfWaveformChannels, item.NumberOfWaveformSamples = 12, len(samples)
        item.SamplingFrequency = rate
        item.ChannelDefinitionSequence = []
        numbers = (1, 2, 61, 62, 63, 64, 3, 4, 5, 6, 7, 8)
        for lead, number in zip(LEADS, numbers, strict=True):
            channel = Dataset()
            channel.ChannelSourceSequence = [code(f"5.6.3-9-{number}", "SCPECG", f"Lead {lead}")]
            channel.ChannelSensitivity = "1"
            channel.ChannelSensitivityUnitsSequence = [code("uV", "UCUM", "microvolt")]
            channel.ChannelSensitivityCorrectionFactor = "1"
            channel.ChannelBaseline, channel.WaveformBitsStored = "0", 16
            item.ChannelDefinitionSequence.append(channel)
        item.WaveformBitsAllocated, item.WaveformSampleInterpretation = 16, "SS"
        item.WaveformData = samples.astype("<i2").tobytes()
        return item

    dataset = Dataset()
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.9.1.1"
    dataset.SOPInstanceUID = generate_uid()
    dataset.Modality = "ECG"
    dataset.WaveformSequence = [group(ecg, "RHYTHM"), group(ecg[:400], "MEDIAN BEAT")]
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path, enforce_file_format=True)


def write_muse(path: Path, ecg: np.ndarray, rate: int) -> None:
    def waveform(kind: str, samples: np.ndarray) -> str:
        leads = []
        for lead, column in zip(EIGHT, samples.T, strict=True):
            data = column.astype("<i2").tobytes()
            leads.append(
                f"<LeadData><LeadByteCountTotal>{len(data)}</LeadByteCountTotal>"
                f"<LeadSampleCountTotal>{len(column)}</LeadSampleCountTotal>"
                "<LeadAmplitudeUnitsPerBit>1</LeadAmplitudeUnitsPerBit>"
                f"<LeadAmplitudeUnits>MICROVOLTS</LeadAmplitudeUnits><LeadID>{lead}</LeadID>"
                f"<LeadSampleSize>2</LeadSampleSize><LeadDataCRC32>{zlib.crc32(data)}"
                f"</LeadDataCRC32><WaveFormData>{base64.b64encode(data).decode()}</WaveFormData>"
                "</LeadData>"
            )
        return (
            f"<Waveform><WaveformType>{kind}</WaveformType><SampleBase>{rate}</SampleBase>"
            f"<SampleExponent>0</SampleExponent>{''.join(leads)}</Waveform>"
        )

    eight = _eight(ecg)
    body = waveform("Median", eight[:300]) + waveform("Rhythm", eight)
    path.write_text(f'<?xml version="1.0"?>\n<RestingECG>{body}</RestingECG>\n')


def write_sierra(path: Path, ecg: np.ndarray, rate: int) -> None:
    """In UTF-16, with the second at the end that holds a calibration pulse."""
    end = np.zeros((rate, 12), np.int16)
    end[rate // 2 : rate // 2 + rate // 5] = 1000
    samples = np.concatenate([ecg, end])
    data = base64.b64encode(np.ascontiguousarray(samples.T).astype("<i2").tobytes()).decode()
    path.write_text(
        '<?xml version="1.0" encoding="utf-16"?>\n<restingecgdata><documentinfo>'
        "<documenttype>PhilipsECG</documenttype><documentversion>1.04</documentversion>"
        '</documentinfo><dataacquisition date="2020-01-01" time="10:00:00"><signalcharacteristics>'
        f"<samplingrate>{rate}</samplingrate><signalresolution>1</signalresolution>"
        "</signalcharacteristics></dataacquisition><waveforms><parsedwaveforms "
        f'durationperchannel="{1000 * len(samples) // rate}" samplespersecond="{rate}" '
        f'resolution="1" dataencoding="Base64" numberofleads="12" leadlabels="{" ".join(LEADS)}">'
        f"{data}</parsedwaveforms></waveforms></restingecgdata>\n",
        encoding="utf-16",
    )


def write_aecg(path: Path, ecg: np.ndarray, rate: int) -> None:
    sequences = [
        '<component><sequence><code code="TIME_ABSOLUTE"/><value><head value="20200101100000"/>'
        f'<increment value="{1 / rate}" unit="s"/></value></sequence></component>'
    ]
    for lead, column in zip(LEADS, ecg.T, strict=True):
        sequences.append(
            f'<component><sequence><code code="MDC_ECG_LEAD_{lead.upper()}"/><value>'
            '<origin value="0" unit="uV"/><scale value="1" unit="uV"/>'
            f"<digits>{' '.join(map(str, column.tolist()))}</digits></value></sequence></component>"
        )
    path.write_text(
        '<?xml version="1.0"?>\n<AnnotatedECG xmlns="urn:hl7-org:v3"><component><series>'
        f'<code code="RHYTHM"/><component><sequenceSet>{"".join(sequences)}</sequenceSet>'
        "</component></series></component></AnnotatedECG>\n"
    )


def write_scp(path: Path, ecg: np.ndarray, rate: int) -> None:
    """Version 2.0, neither compressed nor of differences."""
    eight = _eight(ecg)
    codes = (1, 2, 3, 4, 5, 6, 7, 8)
    leads = b"".join(struct.pack("<IIB", 1, len(eight), code) for code in codes)
    three = struct.pack("<BB", 8, 0x04 | 8 << 3) + leads
    columns = [column.astype("<i2").tobytes() for column in eight.T]
    six = struct.pack("<HHBB", 1000, 1_000_000 // rate, 0, 0)
    six += struct.pack("<8H", *map(len, columns)) + b"".join(columns)
    one = struct.pack("<BHB", 2, 2, ord("x")) + b"\0" + struct.pack("<BH", 255, 0)

    def section(number: int, body: bytes) -> bytes:
        body += b"\0" * (len(body) % 2)
        rest = struct.pack("<HIBB6s", number, 16 + len(body), 20, 20, b"\0" * 6) + body
        return struct.pack("<H", binascii.crc_hqx(rest, 0xFFFF)) + rest

    sections = {1: section(1, one), 3: section(3, three), 6: section(6, six)}
    place, pointers = 7 + 16 + 10 * 12, []
    for number in range(12):
        if number == 0:
            pointers.append((0, 16 + 10 * 12, 7))
            continue
        length = len(sections.get(number, b""))
        pointers.append((number, length, place if length else 0))
        place += length
    zero = b"".join(struct.pack("<HII", *pointer) for pointer in pointers)
    rest = struct.pack("<HIBB6s", 0, 16 + len(zero), 20, 20, b"SCPECG") + zero
    body = struct.pack("<H", binascii.crc_hqx(rest, 0xFFFF)) + rest + b"".join(sections.values())
    sized = struct.pack("<I", 6 + len(body)) + body
    path.write_bytes(struct.pack("<H", binascii.crc_hqx(sized, 0xFFFF)) + sized)


def write_ishne(path: Path, ecg: np.ndarray, rate: int) -> None:
    block = bytearray(512)  # begins at byte 10 of the file
    struct.pack_into("<iiii", block, 0, 0, len(ecg), 522, 522)
    struct.pack_into("<h", block, 16, 1)
    struct.pack_into("<h", block, 146, 12)
    struct.pack_into("<12h", block, 148, *range(5, 17))
    struct.pack_into("<12h", block, 172, *[1] * 12)
    struct.pack_into("<12h", block, 196, *[1000] * 12)  # nV
    struct.pack_into("<h", block, 262, rate)
    checksum = struct.pack("<H", binascii.crc_hqx(bytes(block), 0xFFFF))
    path.write_bytes(b"ISHNE1.0" + checksum + bytes(block) + ecg.astype("<i2").tobytes())


# name -> (file name, writer, what the file does not say itself)
FORMATS = {
    "WFDB": ("r.hea", write_wfdb, {}),
    "CSV": ("r.csv", write_csv, {"rate": 500, "units": "uV"}),
    "NPY": ("r.npy", write_npy, {"rate": 500, "units": "mV", "leads": LEADS}),
    "EDF": ("r.edf", write_edf, {}),
    "BDF": ("r.bdf", write_edf, {}),
    "DICOM": ("r.dcm", write_dicom, {}),
    "GE MUSE": ("muse.xml", write_muse, {}),
    "Philips Sierra": ("sierra.xml", write_sierra, {}),
    "HL7 aECG": ("aecg.xml", write_aecg, {}),
    "SCP-ECG": ("r.scp", write_scp, {}),
    "ISHNE": ("r.ecg", write_ishne, {}),
}


def write_all(folder: Path, ecg: np.ndarray, rate: int) -> dict[str, tuple[Path, dict]]:
    """Writes all formats; format -> (path, arguments of `ecg_jax.read`)."""
    written = {}
    for kind, (name, writer, stated) in FORMATS.items():
        writer(folder / name, ecg, rate)
        written[kind] = folder / name, stated
    return written
