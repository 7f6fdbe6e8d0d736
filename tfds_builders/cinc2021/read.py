"""The Challenge's databases in their published folders, and one record as an example."""

import dataclasses
import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath

from tfds_builders.build import multi_hot
from tfds_builders.cinc2021.classes import CLASSES, present
from tfds_builders.errors import RecordError, SourceError
from tfds_builders.files import stem_of, walk, with_suffix
from tfds_builders.header import read_text
from tfds_builders.records import read_wfdb
from tfds_builders.table import integer, read_table


@dataclasses.dataclass(frozen=True)
class Database:
    """A published folder: what its records are called, and their rate in Hz."""

    name: re.Pattern[str]
    rate: int = 500


DATABASES = {
    "cpsc_2018": Database(re.compile(r"A\d{4}")),
    "cpsc_2018_extra": Database(re.compile(r"Q\d{4}")),
    "ptb-xl": Database(re.compile(r"HR\d{5}")),
    "georgia": Database(re.compile(r"E\d{5}")),
    "chapman_shaoxing": Database(re.compile(r"JS\d{5}")),
    "ningbo": Database(re.compile(r"JS\d{5}")),
    "ptb": Database(re.compile(r"S\d{4}"), 1000),
    "st_petersburg_incart": Database(re.compile(r"I\d{4}"), 257),
}
# Those that systems are trained on; the other two have other rates, lengths and patients.
USUAL = tuple(DATABASES)[:6]

SUFFIXES = (".hea", ".mat")
TRAINING = "training"
# PTB-XL's own table, if it lies beside its records: it tells their patients.
PATIENTS = "ptbxl_database.csv"
_COLUMNS = ("ecg_id", "patient_id", "strat_fold")
_CODE = re.compile(r"\d{6,18}")

# The split: by a hash of the record's name, so that a part of the dataset is divided as the whole
# is. Of 25 folds 18 train (72 %), 2 validate (8 %), 5 test (20 %).
NUM_FOLDS = 25
SPLIT_SEED = "ecg_jax/cinc2021/0"


def fold_of(record_id: str) -> int:
    """1-25, the same wherever and in whatever company the record is read."""
    digest = hashlib.sha256(f"{SPLIT_SEED}:{record_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % NUM_FOLDS + 1


@dataclasses.dataclass(frozen=True)
class Source:
    """A record's place: its path without suffix, its database, patient, fold and split."""

    stem: str
    database: str
    patient_id: str
    fold: int
    split: str

    @property
    def name(self) -> str:
        return PurePosixPath(self.stem).name


def root(folder: Path) -> str:
    """Where the databases' folders lie below `folder`: in `training`, or in itself."""
    return TRAINING if (folder / TRAINING).is_dir() else ""


def find_files(folder: Path, databases: Collection[str]) -> list[str]:
    """Paths below `folder` of the records' files, and of PTB-XL's table.

    Raises SourceError for a folder of a database that the Challenge has not, or for none of those
    that are asked for.
    """
    above = root(folder)
    prefix = f"{above}/" if above else ""
    there = sorted(path.name for path in (folder / above).iterdir() if path.is_dir())
    there = [name for name in there if name != "__MACOSX" and not name.startswith(".")]
    if unknown := [name for name in there if name not in DATABASES]:
        raise SourceError(
            f"{folder / above}: {unknown[0]!r} is no database of the Challenge: there are "
            f"{', '.join(DATABASES)}"
        )
    wanted = [name for name in databases if name in there]
    if not wanted:
        raise SourceError(f"{folder / above}: holds none of {', '.join(databases)}")
    inside = tuple(f"{prefix}{name}/" for name in wanted)
    files = [file for file in walk(folder, above) if file.startswith(inside)]
    table = f"{prefix}ptb-xl/{PATIENTS}"
    return [f for f in files if f == table or with_suffix([f], SUFFIXES)]


def find_records(folder: Path, files: Sequence[str], listed: Collection[str]) -> list[Source]:
    """The records of `files`, and of those that a list of digests names; raises SourceError."""
    above = root(folder)
    prefix = f"{above}/" if above else ""
    databases = {_database(file, prefix) for file in files}
    also = [f for f in listed if f.startswith(prefix) and _database(f, prefix) in databases]
    stems = sorted({stem_of(file) for file in with_suffix([*files, *also], SUFFIXES)})
    known = _patients(folder / f"{prefix}ptb-xl" / PATIENTS)
    found: dict[str, Source] = {}
    for stem in stems:
        name, database = PurePosixPath(stem).name, _database(stem, prefix)
        if not DATABASES[database].name.fullmatch(name):
            raise SourceError(f"{folder / stem}: not the name of a record of {database}")
        if name in found:
            raise SourceError(
                f"{folder}: record {name} occurs twice, as {found[name].stem} and {stem}"
            )
        found[name] = _placed(stem, name, database, known)
    return list(found.values())


def _placed(
    stem: str, name: str, database: str, known: Mapping[int, tuple[str, int]] | None
) -> Source:
    if database == "ptb-xl" and known is not None:
        number = int(name.removeprefix("HR"))
        if number not in known:
            raise SourceError(f"{PATIENTS} lists no ecg_id {number}, which {stem} is")
        patient, fold = known[number]
        split = {9: "validation", 10: "test"}.get(fold, "train")  # PTB-XL's own
        return Source(stem, database, f"ptb-xl/{patient}", fold, split)
    fold = fold_of(name)
    split = "train" if fold <= 18 else "validation" if fold <= 20 else "test"
    return Source(stem, database, name, fold, split)


def _database(file: str, prefix: str) -> str:
    return file.removeprefix(prefix).split("/")[0]


def _patients(path: Path) -> dict[int, tuple[str, int]] | None:
    """{ecg_id: (patient, fold)} of PTB-XL's table; None where there is none."""
    if not path.is_file():
        return None
    known = {}
    for line, row in read_table(path, _COLUMNS, "PTB-XL's patients"):
        try:
            number, fold = integer(row["ecg_id"]), integer(row["strat_fold"])
            patient = str(integer(row["patient_id"].removesuffix(".0")))
        except ValueError:
            raise SourceError(f"{path}, line {line}: ids and folds are whole numbers") from None
        if not 1 <= fold <= 10:
            raise SourceError(f"{path}, line {line}: fold {fold} is none of 1-10")
        known[number] = patient, fold
    return known


def example(folder: Path, source: Source, rate: int, sha256: Mapping[str, str]) -> list[dict]:
    """The record's one example; raises RecordError."""
    stem, published = folder / source.stem, DATABASES[source.database].rate
    recording = read_wfdb(stem, rate, sha256=sha256, published_rate=published)
    stated = comments(stem.with_name(stem.name + ".hea"))
    codes = diagnoses(stated, stem)
    return [
        {
            "ecg": recording.ecg,
            "lead_mask": recording.lead_mask,
            "record_id": source.name,
            "patient_id": source.patient_id,
            "report": "",
            "fold": source.fold,
            "labels": {"challenge": multi_hot(present(codes), CLASSES)},
            "snomed": ",".join(codes),
            "database": source.database,
            "age": age(stated, stem),
            "sex": sex(stated, stem),
        }
    ]


def comments(path: Path) -> dict[str, str]:
    """{name in small letters: value} of a header's `#Dx: ...`, with a space after # or without."""
    found = re.findall(r"^#[ \t]*(\w+)[ \t]*:(.*)$", read_text(path), re.MULTILINE)
    return {name.casefold(): value.strip() for name, value in found}


def diagnoses(stated: Mapping[str, str], where: Path) -> list[str]:
    """The SNOMED CT codes of `Dx`, each once; raises RecordError."""
    if "dx" not in stated:
        raise RecordError(f"{where}.hea: has no #Dx line, so nothing is known of the record")
    codes = [code.strip() for code in stated["dx"].split(",")]
    if unknown := [code for code in codes if not _CODE.fullmatch(code)]:
        raise RecordError(f"{where}.hea: #Dx: {unknown[0][:60]!r} is no SNOMED CT code")
    return list(dict.fromkeys(codes))


def age(stated: Mapping[str, str], where: Path) -> float:
    """Years; -1 where it is not told."""
    text = stated.get("age", "")
    if text.casefold() in ("", "nan", "unknown"):
        return -1.0
    if not re.fullmatch(r"\d{1,3}(\.\d+)?", text):
        raise RecordError(f"{where}.hea: #Age: {text[:60]!r} is no number of years")
    return float(text)


def sex(stated: Mapping[str, str], where: Path) -> int:
    """1 for female, 0 for male, as PTB-XL has them; -1 where it is not told."""
    text = stated.get("sex", "").casefold()
    known = {"female": 1, "f": 1, "male": 0, "m": 0, "": -1, "unknown": -1, "nan": -1}
    if text not in known:
        raise RecordError(f"{where}.hea: #Sex: {text[:60]!r} is neither Male nor Female")
    return known[text]
