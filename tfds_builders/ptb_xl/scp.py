"""The published mapping of PTB-XL's 71 SCP-ECG statements to tasks, read by column name."""

import csv
import dataclasses
from collections.abc import Mapping
from pathlib import Path

from tfds_builders.records import SourceError

# Classes per task in PTB-XL 1.0.1 to 1.0.3 (Strodthoff et al. 2021, doi:10.1109/JBHI.2020.3022989).
NUM_CLASSES = {"super": 5, "sub": 23, "form": 19, "rhythm": 12, "diagnostic": 44, "all": 71}

# Classes that are no statement themselves (Wagner et al. 2020, table 5).
GROUP_DESCRIPTIONS = {
    "CD": "conduction disturbance",
    "HYP": "hypertrophy",
    "MI": "myocardial infarction",
    "STTC": "ST/T changes",
    "ISCA": "ischemic in anterior leads",
    "ISCI": "ischemic in inferior leads",
    "LAFB/LPFB": "left anterior or left posterior fascicular block",
    "_AVB": "AV block",
}

_COLUMNS = ("diagnostic", "form", "rhythm", "diagnostic_class", "diagnostic_subclass")


@dataclasses.dataclass(frozen=True)
class Statements:
    """classes: {task: sorted codes}; members: {task: {statement: the class it counts for}}."""

    classes: dict[str, list[str]]
    members: dict[str, dict[str, str]]
    descriptions: dict[str, str]

    def present(self, task: str, codes: Mapping[str, float]) -> set[str]:
        """Classes of a task; a statement of likelihood 0 (unknown) counts, as in the benchmark."""
        members = self.members[task]
        return {members[code] for code in codes if code in members}


def load_statements(path: Path) -> Statements:
    """Reads `scp_statements.csv`; raises SourceError where it is not the published table."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        raise SourceError(f"{path}: no such file (PTB-XL's table of statements)") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{path}: not a table in UTF-8 ({error})") from error
    if missing := {"", "description", *_COLUMNS} - set(rows[0] if rows else ()):
        raise SourceError(f"{path}: lacks column {', '.join(map(repr, sorted(missing)))}")
    table = {row[""]: row for row in rows}

    def flagged(column: str) -> dict[str, str]:
        return {code: code for code, row in table.items() if float(row[column] or 0) == 1}

    diagnostic = flagged("diagnostic")
    members = {
        "super": {code: table[code]["diagnostic_class"] for code in diagnostic},
        "sub": {code: table[code]["diagnostic_subclass"] for code in diagnostic},
        "form": flagged("form"),
        "rhythm": flagged("rhythm"),
        "diagnostic": diagnostic,
        "all": {code: code for code in table},
    }
    classes = {task: sorted(set(mapping.values())) for task, mapping in members.items()}
    for task, count in NUM_CLASSES.items():
        if len(classes[task]) != count:
            raise SourceError(
                f"{path}: {len(classes[task])} classes of task {task!r}, published are {count}"
            )
    descriptions = GROUP_DESCRIPTIONS | {code: row["description"] for code, row in table.items()}
    return Statements(classes, members, descriptions)
