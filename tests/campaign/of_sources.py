"""Readers of recordings: published folders, own data, single files, prepared data."""

import contextlib
import importlib
import io
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from campaign.mutations import Mutation
from campaign.reader import ANY, Reader, Result, digest, nothing
from tfds_builders.leads import LEADS

PUBLISHED = {
    "ptb_xl": ("layouts", {"records": 5}, ()),
    "cpsc2018": ("layouts", {"layout": "challenge", "records": 4, "max_seconds": 8}, ()),
    "cinc2021": ("layouts", {}, ()),
    "mit_bih": ("layouts", {"seconds": 12}, ("101", "100", "201")),
    "ludb": ("ludb_layout", {"records": (101, 102)}, ()),
    "mimic_iv_ecg": ("mimic_iv_ecg", {"records": 4, "gaps": False}, ()),
}
# What is read may be all that is listed, as digests of nothing are: RECORDS is no part.
OF_RECORDS = (".hea", ".dat", ".mat", ".atr", ".csv", *(f".{lead.casefold()}" for lead in LEADS))


def write_published(folder: Path, name: str, sums: bool) -> None:
    from tfds_builders.files import SUMS

    module, options, keep = PUBLISHED[name]
    layouts = importlib.import_module(f"tfds_builders.simulated.{module}")
    getattr(layouts, f"write_{name}")(folder, **options)
    if keep:
        for path in folder.iterdir():
            if path.stem not in (*keep, "SHA256SUMS", "RECORDS"):
                path.unlink()
        lines = (folder / SUMS).read_text().splitlines()
        kept = [line for line in lines if line.split()[-1].split(".")[0] in keep]
        (folder / SUMS).write_text("\n".join(kept) + "\n")
        (folder / "RECORDS").unlink(missing_ok=True)
    if not sums:
        (folder / SUMS).unlink()


def read_published(folder: Path, name: str) -> Result:
    """All that a builder would write, read and checked, but not written."""
    module = importlib.import_module(f"tfds_builders.{name}.{name}_dataset_builder")
    rate = "rate100" if name == "mit_bih" else "rate500"
    return read_built(module.Builder(config=rate, data_dir=folder.parent / "data"), folder)


def read_built(builder: Any, folder: Path) -> Result:
    from tfds_builders.build import BadRecordsError

    found: Result = {}
    with contextlib.ExitStack() as builder._exit, contextlib.redirect_stderr(io.StringIO()):
        shards = builder._shard_iterators_per_split(types.SimpleNamespace(manual_dir=str(folder)))
        for split, parts in shards.items():
            for part in parts:
                for key, example in part():
                    builder.info.features.encode_example(example)
                    flat = {**example, **example.pop("labels")}
                    found |= {f"{key}/{field}": digest(value) for field, value in flat.items()}
                    found[f"{key}/split"] = split
    if builder._run.bad:
        raise BadRecordsError(builder._run.bad, builder._run.total)
    return found


def of_records(mutation: Mutation) -> tuple[int, Callable[[str], bool]]:
    """Without digests: the records whose files were touched, or what a table says of as many
    records as lines of it were."""
    tables = [file for file in mutation.files if file.endswith(".csv")]
    if "scp_statements.csv" in "".join(tables):
        labels = ("super", "sub", "diagnostic", "form", "rhythm", "all", "scp_likelihood")
        return ANY, lambda item: item.split("/")[1] in labels
    if tables:
        return mutation.lines, lambda item: item.split("/")[1] not in ("ecg", "lead_mask")
    owners = {Path(file).name.split(".")[0].split("_")[0].lstrip("0") for file in mutation.files}
    return len(owners), lambda item: item.split("/")[0].split("_")[0] in owners


# Own data.

OWN_COLUMNS = "id=ID,path=File,report=Text,patient=Patient,split=Part,labels=Labels,age=Age,sex=Sex"


def write_own(folder: Path) -> None:
    import written_formats

    from tfds_builders.simulated.simulator import simulate

    lines = ["ID,File,Text,Patient,Part,Labels,Age,Sex"]
    for i, suffix in enumerate((".hea", ".csv", ".edf", ".dcm", ".xml", ".hea")):
        rng = np.random.default_rng([i, 7])
        ecg = simulate(rng, findings=["NORM", "SR"], seconds=6).ecg_uv[:1500]
        kind = {".hea": "wfdb", ".dcm": "dicom", ".xml": "muse"}.get(suffix, suffix[1:])
        getattr(written_formats, f"write_{kind}")(folder / f"r{i}{suffix}", ecg, 500)
        part = ("train", "train", "validation", "test")[i % 4]
        lines.append(
            f"r{i},r{i}{suffix},report {i},p{i},{part},{'abc'[i % 3]}|d,{50 + i},{'MF'[i % 2]}"
        )
    (folder / "table.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_own(folder: Path) -> Result:
    from tfds_builders import formats
    from tfds_builders.own import own_dataset_builder as own

    stated = formats.Stated(500, "uV")
    said = own.Own(name="own", table=folder / "table.csv", columns=OWN_COLUMNS, stated=stated)
    builder = own.of(said)(config="rate500", data_dir=folder.parent / "data")
    return read_built(builder, folder)


def of_own(mutation: Mutation) -> tuple[int, Callable[[str], bool]]:
    """The table says what it says; classes are all that occur in it. Else the records whose files
    were touched: most formats have no checksums."""
    if any(file.endswith("table.csv") for file in mutation.files):
        return ANY, lambda item: True
    owners = {Path(file).name.split(".")[0] for file in mutation.files}
    return len(owners), lambda item: item.split("/")[0] in owners


# Single recordings.


def write_recordings(folder: Path) -> None:
    from written_formats import write_all

    from tfds_builders.simulated.simulator import simulate

    ecg = simulate(np.random.default_rng(0), findings=["NORM", "SR"], seconds=6).ecg_uv
    write_all(folder, ecg[:1500], 500)


def read_recordings(folder: Path) -> Result:
    """Of all formats, which are told by their content, those that were changed are read."""
    from written_formats import FORMATS

    import ecg_jax

    found: Result = {}
    for kind, (name, _, stated) in FORMATS.items():
        path = folder / name
        state = [p.read_bytes() for p in (path, path.with_suffix(".dat")) if p.exists()]
        known = _READ.get((kind, digest(state)))
        if known is None:
            recording = ecg_jax.read(path, **stated)
            T = len(recording.microvolts)
            assert recording.microvolts.shape == (T, 12) and recording.lead_mask.shape == (12,)
            assert np.isfinite(recording.microvolts).all() and recording.rate > 0
            known = digest(recording.microvolts) + digest(recording.lead_mask)
            _READ[(kind, digest(state))] = known
        found[kind] = known
    return found


_READ: dict[tuple[str, str], str] = {}


def of_one_format(mutation: Mutation) -> tuple[int, Callable[[str], bool]]:
    return len(mutation.files), lambda item: True


# Prepared data.


def write_prepared(folder: Path) -> None:
    from tfds_builders import prepare

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        options = ["simulated", "--rate", "100", "--records", "40", "--data_dir", str(folder)]
        assert prepare.main(options) == 0


def read_prepared(folder: Path) -> Result:
    from ecg_jax.data import records

    return {
        split: records.load(folder, "simulated", 100, split).fingerprint()
        for split in ("train", "validation", "test")
    }


def readers() -> list[Reader]:
    published = [
        Reader(
            f"{name}, {'with' if sums else 'without'} digests",
            lambda folder, name=name, sums=sums: write_published(folder, name, sums),
            lambda folder, name=name: read_published(folder, name),
            nothing if sums else of_records,
            files=OF_RECORDS,
        )
        for name in PUBLISHED
        for sums in (True, False)
    ]
    return [
        *published,
        Reader("own data", write_own, read_own, of_own),
        Reader("recordings of users", write_recordings, read_recordings, of_one_format),
        Reader("prepared data", write_prepared, read_prepared, nothing),
    ]
