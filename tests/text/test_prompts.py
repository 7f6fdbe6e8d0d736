"""Prompts: every class of every task has them, they say what the class is, and a file that does
not is refused."""

import csv
import re
import subprocess
import sys

import pytest

from ecg_jax.data import challenge
from ecg_jax.data.classes import SECTIONS, TASKS
from ecg_jax.errors import UserError
from ecg_jax.text import prompts, reports

DATA = prompts.load_prompts()


def test_published_templates():
    sets = prompts.prompt_sets(["NORM", "AFIB"], "scp")
    assert tuple(sets) == ("etp", "mets", "report", "definition", "clinical", "finding")
    assert sets["etp"]["AFIB"] == ["this ECG indicates atrial fibrillation"]
    assert sets["mets"]["NORM"] == ["The report of the ECG is that normal ECG"]
    assert all(list(classes) == ["NORM", "AFIB"] for classes in sets.values())
    assert "sinus rhythm. normal ecg." in sets["report"]["NORM"]
    assert sets["clinical"]["AFIB"] == sets["report"]["AFIB"] + sets["definition"]["AFIB"]
    assert sets["finding"]["AFIB"][0] == "atrial fibrillation."


def test_a_class_without_findings_is_found_by_its_reports():
    sets = prompts.prompt_sets(["N"], "aami")
    assert "finding" not in DATA["aami"]["N"] and sets["finding"] == sets["report"]


def test_a_finding_is_one_sentence():
    for section in ("super", "sub", "scp"):
        for code, entry in DATA[section].items():
            for text in entry["finding"]:
                assert text.endswith(".") and reports.sentences(text) == [text], (code, text)


def test_the_same_code_in_another_section_is_another_class():
    """Subclass AMI holds all anterior infarctions, statement AMI only those called anterior."""
    sub = prompts.prompt_sets(["AMI"], "sub")["clinical"]["AMI"]
    scp = prompts.prompt_sets(["AMI"], "scp")["clinical"]["AMI"]
    assert any("anteroseptal" in prompt for prompt in sub)
    assert not any("anteroseptal" in prompt for prompt in scp)


@pytest.mark.parametrize("section", SECTIONS)
def test_every_class_has_reports_and_a_definition(section):
    assert set(DATA[section]) == set(SECTIONS[section])
    for code, entry in DATA[section].items():
        assert len(entry["report"]) >= 2 and len(entry["definition"]) >= 1, code
        for prompt in entry["report"] + entry["definition"]:
            assert prompt == prompt.strip().lower() and prompt.endswith("."), prompt


@pytest.mark.parametrize("section", SECTIONS)
def test_classes_can_be_told_apart(section):
    for name in ("report", "definition"):
        wordings = [frozenset(entry[name]) for entry in DATA[section].values()]
        assert len(set(wordings)) == len(wordings), (section, name)


def test_definitions_say_what_can_be_measured():
    """Rate, interval, amplitude, axis, lead or morphology: the words of a criterion."""
    words = re.compile(
        r"\bms\b|\bmv\b|per minute|degrees|\b[pqrstu] waves?\b|\bqrs\b|\brr\b|\bst\b|\bqt\b|"
        r"\bpr\b|\bp\b|v[1-6]|avf|beats?\b|complex|waves|av node|spikes|rhythm"
    )
    for section in SECTIONS:
        for code, entry in DATA[section].items():
            assert all(words.search(text) for text in entry["definition"]), (section, code)


def test_classes_are_the_builders():
    from tfds_builders.cinc2021.classes import SNOMED
    from tfds_builders.cpsc2018.read import CLASSES
    from tfds_builders.ludb.read import CLASSES as LUDB
    from tfds_builders.mit_bih.read import AAMI_CLASSES, RHYTHMS
    from tfds_builders.ptb_xl.scp import NUM_CLASSES
    from tfds_builders.simulated.findings import CODES, SUPERCLASSES

    def of(dataset):
        return {task: set(classes) for task, (_, classes) in TASKS[dataset].items()}

    assert of("cpsc2018") == {"cpsc": set(CLASSES)}
    ours = {name: tuple(map(str, codes)) for name, codes in challenge.SNOMED.items()}
    assert ours == SNOMED and tuple(ours) == tuple(SNOMED)
    assert of("mit_bih") == {"aami": set(AAMI_CLASSES), "rhythm": set(RHYTHMS)}
    assert of("ludb") == {task: set(codes) for task, codes in LUDB.items()}
    assert of("simulated") == {"super": set(SUPERCLASSES), "findings": set(CODES)}
    stored = of("ptb_xl")
    del stored["challenge"]  # made when records are read
    assert {task: len(classes) for task, classes in stored.items()} == NUM_CLASSES
    for tasks in TASKS.values():
        for section, classes in tasks.values():
            assert len(set(classes)) == len(classes) and set(classes) <= set(SECTIONS[section])


@pytest.mark.real_data
def test_classes_are_the_published_ones(real_data):
    from ecg_jax.data.classes import SUBCLASS, SUPERCLASS

    with (real_data / "ptb-xl" / "scp_statements.csv").open(encoding="utf-8") as file:
        rows = {row[""]: row for row in csv.DictReader(file)}

    def column(name):
        return {code: row[name] for code, row in rows.items() if row[name]}

    assert column("diagnostic_class") == SUPERCLASS
    assert column("diagnostic_subclass") == SUBCLASS
    for task in ("form", "rhythm", "diagnostic"):
        assert set(column(task)) == set(TASKS["ptb_xl"][task].classes)
    assert set(rows) == set(SECTIONS["scp"])


def test_unknown_class_and_section():
    with pytest.raises(UserError, match=r"class in section \[super\].*'NORN': did you mean NORM"):
        prompts.prompt_sets(["MI", "NORN"], "super")
    with pytest.raises(UserError, match="'diagnostic': there are super, sub"):
        prompts.prompt_sets(["NORM"], "diagnostic")


OWN = """
[templates]
mine = "ecg with {name}"
[aami.N]
name = "n"
report = ["n one.", "n two."]
definition = ["n three."]
""" + "".join(
    f'[aami.{c}]\nname = "{c}"\nreport = ["{c} a."]\ndefinition = ["{c} b."]\n' for c in "SVFQ"
)


def test_a_file_of_ones_own(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(OWN)
    sets = prompts.prompt_sets(["V", "N"], "aami", path)
    assert tuple(sets) == ("mine", "report", "definition", "clinical", "finding")
    assert sets["mine"] == {"V": ["ecg with V"], "N": ["ecg with n"]}
    assert sets["clinical"]["N"] == ["n one.", "n two.", "n three."]
    others = prompts.prompt_sets(["AF"], "cpsc", path)  # a section that the file does not have
    assert others["report"] == prompts.prompt_sets(["AF"], "cpsc")["report"]
    assert prompts.prompt_sets(["V"], "aami")["report"]["V"] != ["V a."]


def test_a_part_of_a_section_and_classes_of_ones_own(tmp_path):
    path = tmp_path / "own.toml"
    own = "[{}]\nname = 'v'\nreport = ['v one.']\ndefinition = ['v two.']\n"
    path.write_text(own.format("aami.V") + own.format('labels."Any name"'))
    sets = prompts.prompt_sets(["V", "N"], "aami", path)
    assert sets["report"]["V"] == ["v one."]
    assert sets["report"]["N"] == prompts.prompt_sets(["N"], "aami")["report"]["N"]
    mine = prompts.prompt_sets(["Any name", "ST_depression"], "labels", path)
    assert mine["report"] == {"Any name": ["v one."], "ST_depression": ["st depression."]}
    assert mine["etp"]["ST_depression"] == ["this ECG indicates ST depression"]
    shipped = prompts.load_prompts()["aami"]["N"]["name"]
    path.write_text(own.format("aami.V").replace("'v'", repr(shipped)))
    with pytest.raises(UserError, match=r"\[aami\.V\] and \[aami\.N\] have one and the same name"):
        prompts.prompt_sets(["V"], "aami", path)
    with pytest.raises(UserError, match=r"have one and the same name, 'st depression'"):
        prompts.prompt_sets(["ST_depression", "st depression"], "labels")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[aami.V]", "[aami.W]", r"\[aami\] has an unknown class: 'W'"),
        ("[aami.N]", '[aami."N "]', r"'N ': did you mean N\?"),
        ("[aami.N]", "[amai.N]", r"unknown section: 'amai': did you mean aami\?"),
        ('["V a."]', "[]", r"\[aami\.V\] report must be a list of one or more"),
        ('["V a."]', '"V a."', r"\[aami\.V\] report must be a list"),
        ('["V a."]', '["V a.", 3]', r"\[aami\.V\] report: each item must be a text, not 3"),
        ('["V a."]', '["V b."]', r"\[aami\.V\] has the wording 'V b\.' twice"),
        ('["V a."]', '["V a.", "V a."]', r"\[aami\.V\] has the wording 'V a\.' twice"),
        ('name = "V"', 'nam = "V"', r"\[aami\.V\] has an unknown field: 'nam': did you mean name"),
        ('name = "V"\n', "", r"\[aami\.V\] name must be a text, not None"),
        ('definition = ["V b."]', "", r"\[aami\.V\] definition must be a list"),
        (
            'report = ["V a."]',
            'report = ["s  A."]',
            r"\[aami\.V\] and \[aami\.S\] have one and the",
        ),
        ('name = "V"', 'name = "F"', r"\[aami\.F\] and \[aami\.V\] have one and the same name"),
        ("{name}", "{nam}", r"\[templates\] mine: must be one text with \{name\}"),
        ("mine =", "clinical =", "clinical: this name is of the classes' own"),
        ("[aami.V]", "[aami.S]", "not a prompt file in TOML"),
        (OWN, "", "holds no prompts"),
        (OWN, "aami = 3", r"'aami' must be a section"),
        (OWN, "[aami]\nN = 3\nS = 3\nV = 3\nF = 3\nQ = 3", r"\[aami\.N\] must hold name"),
    ],
)
def test_a_file_that_is_wrong_is_one_line(tmp_path, old, new, message):
    path = tmp_path / "own.toml"
    assert old in OWN
    path.write_text(OWN.replace(old, new, 1))
    with pytest.raises(UserError, match=message) as error:
        prompts.prompt_sets(["N"], "aami", path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_no_such_file(tmp_path):
    with pytest.raises(UserError, match="no such prompt file"):
        prompts.load_prompts(tmp_path / "missing.toml")


def test_the_tool_shows_every_class_and_set():
    text = prompts.listing("mit_bih", "aami")
    assert "mit_bih aami: 5 classes of section [aami]" in text
    for entry in DATA["aami"].values():
        assert all(wording in text for wording in entry["report"] + entry["definition"])
    with pytest.raises(UserError, match="unknown dataset: 'mitbih': did you mean mit_bih"):
        prompts.listing("mitbih", "aami")


def test_the_command_line(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(OWN.replace("[aami.V]", "[aami.W]"))
    command = [sys.executable, "-m", "ecg_jax.text.prompts", "--dataset", "mit_bih"]
    ended = subprocess.run(
        [*command, "--task", "aami", "--file", path], capture_output=True, text=True
    )
    assert ended.returncode == 2 and ended.stdout == ""
    assert ended.stderr.startswith("error: ") and ended.stderr.count("\n") == 1
    ended = subprocess.run([*command, "--task", "rhythm"], capture_output=True, text=True)
    assert ended.returncode == 0 and "VFL  ventricular flutter" in ended.stdout
