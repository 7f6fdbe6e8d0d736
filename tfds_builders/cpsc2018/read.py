"""CPSC2018 in its two published layouts, and one record of either as an example."""

import dataclasses
import hashlib
import re
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from tfds_builders.errors import RecordError, SourceError
from tfds_builders.files import capitals, stem_of, verify_sha256, walk, with_suffix
from tfds_builders.header import read_text
from tfds_builders.leads import LEADS
from tfds_builders.records import Recording, read_wfdb, to_recording
from tfds_builders.table import integer, read_table

FS = 500  # Hz

# The challenge's own numbers 1-9, in order.
CLASSES = ("Normal", "AF", "I-AVB", "LBBB", "RBBB", "PAC", "PVC", "STD", "STE")
DESCRIPTIONS = dict(
    zip(
        CLASSES,
        (
            "normal ECG",
            "atrial fibrillation",
            "first-degree atrioventricular block",
            "left bundle branch block",
            "right bundle branch block",
            "premature atrial contraction",
            "premature ventricular contraction",
            "ST-segment depression",
            "ST-segment elevation",
        ),
        strict=True,
    )
)

# SNOMED CT codes by which the PhysioNet/CinC Challenge 2020 writes them.
CLASS_OF_SNOMED = {
    "426783006": "Normal",  # sinus rhythm
    "164889003": "AF",
    "270492004": "I-AVB",
    "164909002": "LBBB",
    "59118001": "RBBB",
    "284470004": "PAC",
    "164884008": "PVC",  # ventricular ectopics
    "429622005": "STD",
    "164931005": "STE",
}

# The split: record by record (each counts as a patient), by a hash, so that a part of the
# dataset is divided as the whole is. Of 25 folds 18 train (72 %), 2 validate (8 %), 5 test (20 %).
NUM_FOLDS = 25
SPLIT_SEED = "ecg_jax/cpsc2018/0"

SUFFIXES = (".hea", ".mat")
TABLE = "REFERENCE.csv"
_RECORD_NAME = re.compile(r"A\d{4}")
_RECORD_FILE = re.compile(r"(^|/)A\d{4}\.(hea|mat)$")
_NO_NAME = "not a CPSC2018 record name (A0001 to A6877)"


def fold_of(record_id: str) -> int:
    """1-25, the same wherever and in whatever company the record is read."""
    digest = hashlib.sha256(f"{SPLIT_SEED}:{record_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % NUM_FOLDS + 1


def split_of(fold: int) -> str:
    if fold <= 18:
        return "train"
    return "validation" if fold <= 20 else "test"


@dataclasses.dataclass(frozen=True)
class Source:
    """A record's files in either layout; `classes` is None where the header states them."""

    stem: Path
    classes: tuple[str, ...] | None


def find_files(folder: Path) -> list[str]:
    """Paths below `folder` of the records' files and of their tables; raises SourceError."""
    files = walk(folder, _below(folder))
    return [f for f in files if PurePosixPath(f).name == TABLE or with_suffix([f], SUFFIXES)]


def _below(folder: Path) -> str:
    """The Challenge's training folder holds other datasets too, beside cpsc_2018."""
    nested = [below for below in ("cpsc_2018", "training/cpsc_2018") if (folder / below).is_dir()]
    return nested[0] if nested else ""


def find_records(
    folder: Path, files: list[str] | None = None, sums: Collection[str] = ()
) -> dict[str, Source]:
    """Records by name, of whichever layout the folder holds; raises SourceError.

    `files` are those of `find_files`; `sums` lists files that should be there.
    """
    files = find_files(folder) if files is None else files
    references = [folder / file for file in files if PurePosixPath(file).name == TABLE]
    headers = with_suffix(files, (".hea",))
    if references and headers:
        raise SourceError(
            f"{folder}: holds both layouts (REFERENCE.csv and *.hea), which share records: "
            "give the folder of one"
        )
    if not references and not headers:
        raise SourceError(f"{folder}: neither REFERENCE.csv nor *.hea below it")
    if headers:
        # A record of which a file is missing is found by another, or by its line in the digests.
        listed = [f for f in sums if f.startswith(_below(folder)) and _RECORD_FILE.search(f)]
        stems = sorted({stem_of(f) for f in [*with_suffix(files, SUFFIXES), *listed]})
        sources = [Source(folder / stem, None) for stem in stems]
    else:
        sources = _read_references(folder, references, with_suffix(files, (".mat",)))
    return _by_name(folder, sources)


def _read_references(folder: Path, references: list[Path], files: list[str]) -> list[Source]:
    found: dict[str, str] = {}
    for stem in map(stem_of, files):
        name = PurePosixPath(stem).name
        if name in found:
            raise SourceError(f"{folder}: {found[name]}.mat and {stem}.mat are of one name")
        found[name] = stem
    sources = []
    for path in references:
        for line, row in read_table(path, ("Recording", "First_label"), "CPSC2018's labels"):
            name = row["Recording"].strip()
            if not _RECORD_NAME.fullmatch(name):
                raise SourceError(f"{path}, line {line}: {name[:60]!r} is {_NO_NAME}")
            stem = found.pop(name, None)
            # Where there is no such file, reading it says so.
            place = path.with_name(name) if stem is None else folder / stem
            sources.append(Source(place, _reference_classes(row, path)))
    if found:
        raise SourceError(
            f"{folder}: no REFERENCE.csv names {', '.join(sorted(found)[:5])} "
            f"({len(found)} .mat files without labels)"
        )
    return sources


def _reference_classes(row: Mapping[str, str], path: Path) -> tuple[str, ...]:
    labels = [row.get(f"{nth}_label") for nth in ("First", "Second", "Third")]
    try:
        numbers = [integer(label.strip()) for label in labels if label and label.strip()]
    except ValueError:
        numbers = []
    if not numbers or not all(1 <= number <= len(CLASSES) for number in numbers):
        raise SourceError(f"{path}: labels {labels} of {row['Recording']} are not numbers 1-9")
    return tuple(CLASSES[number - 1] for number in numbers)


def _by_name(folder: Path, sources: list[Source]) -> dict[str, Source]:
    records: dict[str, Source] = {}
    for source in sources:
        name = source.stem.name
        if not _RECORD_NAME.fullmatch(name):
            raise SourceError(f"{source.stem}: {_NO_NAME}")
        if name in records:
            places = {str(record.stem.parent) for record in (records[name], source)}
            raise SourceError(
                f"{folder}: record {name} occurs twice, in {' and '.join(sorted(places))}"
            )
        records[name] = source
    return records


def example(source: Source, rate: int, sha256: Mapping[str, str]) -> list[dict]:
    """The record's one example; raises RecordError."""
    name = source.stem.name
    if source.classes is None:
        recording = read_wfdb(
            source.stem, rate, sha256=sha256, required_leads=LEADS, published_rate=FS
        )
        classes = header_classes(source.stem.with_suffix(".hea"))
    else:
        recording, classes = _read_struct(source.stem, rate, sha256), source.classes
    return [
        {
            "ecg": recording.ecg,
            "lead_mask": recording.lead_mask,
            "record_id": name,
            "patient_id": name,
            "report": "",
            "fold": fold_of(name),
            "labels": {"cpsc": np.array([code in classes for code in CLASSES], np.uint8)},
        }
    ]


def header_classes(path: Path) -> tuple[str, ...]:
    """Classes of the header's `#Dx:` line; raises RecordError."""
    text = read_text(path)
    match = re.search(r"^#\s*Dx:(.*)$", text, re.MULTILINE)
    codes = [code.strip() for code in match[1].split(",")] if match else []
    if unknown := [code for code in codes or [""] if code not in CLASS_OF_SNOMED]:
        raise RecordError(f"{path}: #Dx: code {unknown[0]!r} is none of CPSC2018's nine classes")
    return tuple(CLASS_OF_SNOMED[code] for code in codes)


def _read_struct(stem: Path, rate: int, sha256: Mapping[str, str]) -> Recording:
    """A MATLAB struct `ECG` with `data` [12, T] in mV at 500 Hz, leads I to V6 in our order."""
    from scipy.io import loadmat  # reads no pickles and runs no code

    path = stem.with_suffix(".mat")
    for name, digest in sha256.items():
        verify_sha256(path.with_name(name), digest)
    if not path.is_file():
        raise RecordError(f"{path}: no such file{capitals(path)}")
    try:
        data = loadmat(path, variable_names=["ECG"])["ECG"]["data"][0, 0]
    except Exception as error:
        raise RecordError(f"{path}: not a struct ECG with data ({error})") from error
    if data.ndim != 2 or data.shape[0] != len(LEADS) or data.dtype.kind not in "fi":
        raise RecordError(f"{path}: data of shape {data.shape}, {data.dtype}: not 12 leads in mV")
    if not data.shape[1]:
        raise RecordError(f"{path}: holds no samples")
    if data.dtype.kind == "i":
        raise RecordError(f"{path}: data are integers ({data.dtype}), published are mV as floats")
    return to_recording(1000.0 * data.T, LEADS, FS, rate, path)
