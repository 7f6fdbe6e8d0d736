"""The published mapping of PTB-XL's 71 SCP-ECG statements to tasks, read by column name."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path

from tfds_builders.errors import SourceError
from tfds_builders.table import read_table

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

    @functools.cached_property
    def places(self) -> dict[str, dict[str, int]]:
        """{task: {class: its column}}."""
        return {
            task: {name: i for i, name in enumerate(names)} for task, names in self.classes.items()
        }

    def present(self, task: str, codes: Mapping[str, float]) -> set[str]:
        """Classes of a task; a statement of likelihood 0 (unknown) counts, as in the benchmark."""
        members = self.members[task]
        return {members[code] for code in codes if code in members}


def load_statements(path: Path) -> Statements:
    """Reads `scp_statements.csv`; raises SourceError where it is not the published table."""
    rows = read_table(path, ("", "description", *_COLUMNS), "PTB-XL's table of statements")
    table = {fields[""]: fields for _, fields in rows}
    if len(table) != len(rows):
        raise SourceError(f"{path}: a statement occurs twice")
    for line, fields in rows:
        for column in ("diagnostic", "form", "rhythm"):
            if fields[column] not in ("", "0", "0.0", "1", "1.0"):
                raise SourceError(f"{path}, line {line}: {column} {fields[column]!r} is not 0 or 1")

    def flagged(column: str) -> dict[str, str]:
        return {code: code for code, row in table.items() if row[column] in ("1", "1.0")}

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
