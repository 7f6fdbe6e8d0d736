"""What no builder of recordings may fall for, tried on each of them.

A builder that is added needs a line in `LAYOUTS`.
"""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from ecg_jax.data import records
from tfds_builders import prepare
from tfds_builders.build import EcgBuilder
from tfds_builders.leads import LEADS
from tfds_builders.mimic_iv_ecg.read import fold_of, split_of
from tfds_builders.simulated.layouts import (
    write_cinc2021,
    write_cpsc2018,
    write_mit_bih,
    write_ptb_xl,
)
from tfds_builders.simulated.ludb_layout import write_ludb
from tfds_builders.simulated.mimic_iv_ecg import write_mimic_iv_ecg
from tfds_builders.simulated.simulator import simulate
from tfds_builders.simulated.wfdb_files import write_format_16, write_header, write_sha256

LAYOUTS = {
    "ptb_xl": lambda folder: write_ptb_xl(folder, records=12),
    "cpsc2018": lambda folder: write_cpsc2018(folder, layout="challenge", records=4, max_seconds=8),
    "cinc2021": write_cinc2021,
    "mit_bih": lambda folder: write_mit_bih(folder, seconds=12),
    "ludb": write_ludb,
    "mimic_iv_ecg": lambda folder: write_mimic_iv_ecg(
        folder, records=8, gaps=False, split=lambda subject: split_of(fold_of(subject))
    ),
    "own": lambda folder: write_own(folder),
}
SUMS = "SHA256SUMS.txt"
OWN = ("--columns", "id=ID,path=File,split=Part")


def write_own(folder: Path) -> None:
    """Recordings of nobody's dataset, and their table."""
    lines = ["ID,File,Part"]
    for i, part in enumerate(("train", "train", "validation", "test")):
        ecg = simulate(np.random.default_rng(i), findings=["NORM", "SR"], seconds=6).ecg_uv
        path = folder / f"r{i}.hea"
        write_header(path, 500, ecg, LEADS, ".dat 16 1000(0)/mV 16 0", signed_checksum=True)
        write_format_16(path.with_suffix(".dat"), ecg)
        lines.append(f"r{i},{path.name},{part}")
    (folder / "table.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    write_sha256(folder)


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            LAYOUTS[name](made[name])
        return made[name]

    return get


@pytest.fixture(params=LAYOUTS)
def name(request) -> str:
    return request.param


@pytest.fixture
def source(name, published, tmp_path) -> Path:
    folder = tmp_path / "source"
    shutil.copytree(published(name), folder)
    return folder


def run(name: str, source: Path, *options: str) -> int:
    data_dir = source.parent / "data"
    arguments = [name, "--source", str(source), "--rate", "100", "--data_dir", str(data_dir)]
    if name == "own":
        arguments += ["--table", str(source / "table.csv"), *OWN]
    return prepare.main([*arguments, *options])


def refused(name: str, source: Path, capsys, status: int) -> str:
    assert run(name, source) == status
    assert not (source.parent / "data").exists()
    error = capsys.readouterr().err
    assert "Traceback" not in error and (status == 1 or error.count("\n") == 1)
    return error


def headers(source: Path) -> list[Path]:
    return sorted(source.rglob("*.hea"))


def signals(header: Path) -> Path:
    return next(p for p in header.parent.glob(f"{header.stem}.*") if p.suffix in (".dat", ".mat"))


def without_sums(source: Path) -> None:
    (source / SUMS).unlink()


def edit(path: Path, pattern: str, new: str, count: int = 0) -> None:
    text, edits = re.subn(pattern, new, path.read_text(encoding="utf-8"), count=count, flags=re.M)
    assert edits
    path.write_text(text, encoding="utf-8")


def ids(source: Path, name: str) -> dict[str, str]:
    """{record: split} of what was prepared."""
    builder = tfds.builder_from_directory(records.folder(source.parent / "data", name, 100))
    return {
        example["record_id"].decode(): split
        for split in builder.info.splits
        for example in builder.as_data_source(split)
    }


def test_every_builder_is_here():
    assert set(LAYOUTS) == set(prepare.NAMES) - {"simulated"}


def test_files_that_agree_with_their_digests_are_counted(name, source, capsys):
    listed = (source / SUMS).read_text(encoding="utf-8").splitlines()
    (source / "._x.hea").touch()
    (source / "__MACOSX").mkdir()
    (source / "__MACOSX" / "x.hea").touch()
    assert run(name, source) == 0
    verified = int(re.search(r"(\d+) files agree with SHA256SUMS", capsys.readouterr().out)[1])
    assert len(listed) - 1 <= verified <= len(listed)  # RECORDS is none of a record
    prepared = records.folder(source.parent / "data", name, 100)
    sealed = tfds.builder_from_directory(prepared).info.metadata["sealed"]["shards"]
    assert set(sealed) == {path.name for path in prepared.glob("*array_record*")} != set()


@pytest.mark.parametrize("sums", [True, False])
@pytest.mark.parametrize("missing", [".hea", "signals"])
def test_half_a_record_is_named(name, source, capsys, missing, sums):
    header = headers(source)[1]
    gone = header if missing == ".hea" else signals(header)
    gone.unlink()
    if not sums:
        without_sums(source)
    assert f"{gone.name}: no such file" in refused(name, source, capsys, 1)


def test_a_record_that_is_listed_only_is_named(name, source, capsys):
    header = headers(source)[1]
    for file in (header, signals(header)):
        file.unlink()
    error = refused(name, source, capsys, 1)
    assert f"{header.stem}" in error and "1 of " in error


def test_a_missing_shard_is_noticed(name, source, capsys):
    assert run(name, source) == 0
    next((source.parent / "data").rglob("*array_record*")).unlink()
    assert run(name, source) == 2
    assert "is missing: --overwrite prepares again" in capsys.readouterr().err
    assert run(name, source, "--overwrite") == 0 == run(name, source)


def test_a_record_that_is_not_listed_is_named(name, source, capsys):
    header = headers(source)[1]
    edit(source / SUMS, rf"^.*{header.stem}\.hea\n", "")
    error = refused(name, source, capsys, 1)
    assert f"{header.name}: not listed in SHA256SUMS.txt" in error and "1 of " in error


def test_digests_of_another_folder(name, source, capsys):
    edit(source / SUMS, r"^(\w{64}) ", r"\1 elsewhere/")
    assert "none of the" in refused(name, source, capsys, 2)


def test_digests_that_are_not_utf_8(name, source, capsys):
    path = source / SUMS
    path.write_bytes(path.read_bytes() + b"# M\xfcller\n")
    assert "not text in UTF-8" in refused(name, source, capsys, 2)


def test_a_header_in_capitals_is_named(name, source, capsys):
    without_sums(source)
    header = headers(source)[1]
    header.rename(header.with_suffix(".HEA"))
    error = refused(name, source, capsys, 1)
    assert f"{header.name}: no such file (rename {header.stem}.HEA, which is there)" in error


def test_a_link_to_a_folder_is_followed(name, source):
    header = headers(source)[0]
    if header.parent == source:
        pytest.skip("its records lie in the folder itself")
    count, elsewhere = len(headers(source)), source.parent / "elsewhere"
    shutil.move(header.parent, elsewhere)
    header.parent.symlink_to(elsewhere)
    (elsewhere / "round").symlink_to(source)
    assert run(name, source) == 0 and len(ids(source, name)) == count


def test_a_folder_that_cannot_be_read(name, source, capsys, monkeypatch):
    closed, scandir = headers(source)[0].parent, os.scandir

    def denied(path="."):
        if isinstance(path, os.PathLike) and Path(path) == closed:
            raise PermissionError(13, "Permission denied", str(closed))
        return scandir(path)

    monkeypatch.setattr("tfds_builders.files.os.scandir", denied)
    assert "can't be read (Permission denied)" in refused(name, source, capsys, 2)


def test_the_header_of_another_record(name, source, capsys):
    without_sums(source)
    one, other = headers(source)[:2]
    shutil.copy(one, other)
    error = refused(name, source, capsys, 1)
    assert f"{other.name}: names '{one.stem}', so it is another record's header" in error


def test_a_unit_that_is_wrong_by_a_thousand(name, source, capsys):
    without_sums(source)
    edit(headers(source)[1], r"^(\S+ \S+) (\d+)\S*( .* 0 \S+)$", r"\1 \2/uV\3")
    assert "is the gain or its unit wrong?" in refused(name, source, capsys, 1)


def silence(header: Path, lead: int | None = None) -> None:
    """Zeroes of all leads, or of one, with their checksums."""
    text = header.read_text(encoding="utf-8").split("\n")
    count, path = int(text[0].split()[1]), signals(header)
    data = bytearray(path.read_bytes())
    offset = 24 if path.suffix == ".mat" else 0
    for i in range(count):
        if lead in (None, i):
            fields = text[1 + i].split(" ")
            fields[6] = "0"
            text[1 + i] = " ".join(fields)
    if lead is None:
        data[offset:] = bytes(len(data) - offset)
    else:
        for i in range(offset + 2 * lead, len(data), 2 * count):
            data[i : i + 2] = b"\0\0"
    header.write_text("\n".join(text), encoding="utf-8")
    path.write_bytes(data)


def test_a_record_without_a_signal(name, source, capsys):
    without_sums(source)
    silence(headers(source)[1])
    assert re.search("all leads are (constant|flat)", refused(name, source, capsys, 1))


def test_a_lead_without_a_signal_is_masked(name, source, capsys):
    if " 16" not in headers(source)[1].read_text(encoding="utf-8").split("\n")[1][:20]:
        pytest.skip("two samples of two leads share a byte")
    without_sums(source)
    silence(headers(source)[1], lead=8)
    assert run(name, source) == 0
    assert "1 with leads that never change, masked: " in capsys.readouterr().out
    builder = tfds.builder_from_directory(records.folder(source.parent / "data", name, 100))
    ((record, leads),) = builder.info.metadata["dead_leads"].items()
    assert list(leads) == ["V3"]
    for split in builder.info.splits:
        for example in builder.as_data_source(split):
            assert example["lead_mask"][8] == (example["record_id"].decode() != record)
            assert example["ecg"][:, 8].any() == example["lead_mask"][8]


def test_limb_leads_that_contradict_each_other(name, source, capsys):
    header = headers(source)[1]
    text = header.read_text(encoding="utf-8")
    if not re.search(r" aVR\n", text, re.I):
        pytest.skip("it has one limb lead")
    without_sums(source)
    other = {" i\n": " II\n", " ii\n": " I\n"}
    text = re.sub(" II?\n", lambda lead: other[lead[0].casefold()], text, flags=re.I)
    header.write_text(text, encoding="utf-8")
    assert "they fit with leads I and II exchanged" in refused(name, source, capsys, 1)
    assert run(name, source, "--limb_leads", "as_given") == 0
    builder = tfds.builder_from_directory(records.folder(source.parent / "data", name, 100))
    assert builder.info.metadata["limb_leads"] == "as given"
    assert run(name, source, "--limb_leads", "checked") == 2
    assert "was prepared with limb_leads as given, not checked" in capsys.readouterr().err


def test_another_rate_than_the_published_one(name, source, capsys):
    if name == "own":
        pytest.skip("it has no published rate")
    without_sums(source)
    edit(headers(source)[1], r"\A(\S+ \d+) \d+ ", r"\1 250 ")
    assert "states 250 Hz, the dataset is published at" in refused(name, source, capsys, 1)


def test_a_record_of_milliseconds(name, source, capsys):
    without_sums(source)
    header = headers(source)[1]
    edit(header, r"\A(\S+ \d+ \d+) \d+", r"\1 3")
    edit(header, r"^(\S+ \S+ \S+ \S+ \S+ \S+) \S+ 0 ", r"\1 CHECKSUM 0 ")
    lines = header.read_text(encoding="utf-8").split("\n")
    for _ in range(int(lines[0].split()[1]) + 1):  # the error names each checksum
        header.write_text("\n".join(lines).replace("CHECKSUM", "0"), encoding="utf-8")
        error = refused(name, source, capsys, 1)
        if not (actual := re.search(r"lead \S+, is (\d+), header", error)):
            break
        first = next(i for i, line in enumerate(lines) if "CHECKSUM" in line)
        lines[first] = lines[first].replace("CHECKSUM", actual[1])
    words = (" s long", "less than a second", "annotates beats outside the")
    assert any(word in error for word in words)


def test_one_recording_in_two_splits(name, source, capsys):
    """Under another name, and of another patient."""
    assert run(name, source) == 0
    split = {key.split("_")[0]: split for key, split in ids(source, name).items()}
    shutil.rmtree(source.parent / "data")
    without_sums(source)

    def split_of(header: Path) -> str:
        key = header.stem.split("_")[0]
        return split[key if key in split else str(int(key))]

    test = next(header for header in headers(source) if split_of(header) == "test")
    train = next(header for header in headers(source) if split_of(header) == "train")
    subject = re.search("# <subject_id>: .*", test.read_text(encoding="utf-8"))
    for file in train.parent.glob(f"{train.stem}.*"):
        shutil.copy(file, test.with_suffix(file.suffix))
    edit(test, train.stem, test.stem)
    if subject:
        edit(test, "# <subject_id>: .*", subject[0])
    error = refused(name, source, capsys, 1)
    assert "has the signal of record" in error and "in split train: a leak" in error


def test_another_source_is_not_taken_for_what_is_prepared(name, source, capsys):
    without_sums(source)
    assert run(name, source) == 0
    copy = source.with_name("copy")
    shutil.copytree(source, copy)
    assert run(name, copy) == 0 and "already prepared" in capsys.readouterr().out
    header = headers(copy)[1]
    with header.open("a", encoding="utf-8") as file:
        file.write("# corrected\n")
    before = records.folder(source.parent / "data", name, 100).stat().st_ino
    assert run(name, copy) == 2
    error = capsys.readouterr().err
    assert "from other files than" in error and "--overwrite prepares it again" in error
    assert run(name, copy, "--overwrite") == 0 and run(name, copy) == 0
    assert records.folder(source.parent / "data", name, 100).stat().st_ino != before
    assert {path.name for path in (source.parent / "data").iterdir()} == {name}


def test_a_failed_overwrite_leaves_what_is_there(name, source, capsys):
    without_sums(source)
    assert run(name, source) == 0
    before = sorted((source.parent / "data").rglob("*"))
    signals(headers(source)[1]).unlink()
    assert run(name, source, "--overwrite") == 1
    assert sorted((source.parent / "data").rglob("*")) == before


def test_two_at_once(name, source, capsys, monkeypatch):
    """The slower one finds what it would have made."""
    files = EcgBuilder._download_and_prepare
    quicker = []

    def slow(builder, *arguments, **options):
        if not quicker:
            quicker.append(None)
            assert run(name, source) == 0
        files(builder, *arguments, **options)

    monkeypatch.setattr(EcgBuilder, "_download_and_prepare", slow)
    assert run(name, source) == 0
    assert "was prepared meanwhile" in capsys.readouterr().out
    assert not list((source.parent / "data").rglob("*incomplete*"))


def test_a_name_of_300_letters(name, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_:
        run(name, tmp_path / ("a" * 300))
    assert exit_.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
