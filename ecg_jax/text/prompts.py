"""Prompts for zero-shot classification, read from `prompts.toml`.

    python -m ecg_jax.text.prompts [--dataset ptb_xl] [--task super] [--file FILE]

prints which prompts serve which class.
"""

import argparse
import difflib
import functools
import tomllib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from ecg_jax.data.classes import OWN, SECTIONS, TASKS
from ecg_jax.errors import UserError, run_main
from ecg_jax.runtime import storage

PROMPTS = Path(__file__).with_name("prompts.toml")
# Wordings of a class's own; the published templates are sets, too.
WORDINGS = ("report", "definition")
ENSEMBLE = "clinical"  # both together
FINDING = "finding"  # single findings, one sentence each; a class without any has its reports


def prompt_sets(
    classes: Sequence[str], section: str, path: str | Path | None = None
) -> dict[str, dict[str, list[str]]]:
    """Every prompt set for the classes of one task.

    Args:
      classes: class codes in the task's order, e.g. `["NORM", "MI"]`.
      section: where the codes are defined, one of `data.classes.SECTIONS`; the same code can stand
        for different classes (`AMI` is a subclass and an SCP statement). Or `labels`, a user's own.
      path: a prompt file of one's own; see `load_prompts`.

    Returns:
      {set: {class: prompts}}, the classes in the order given. First the templates ("etp" and "mets"
      are the published ones) with one prompt per class, then "report" and "definition", this
      project's wordings, "clinical", both together, and "finding", single findings.

    Raises:
      UserError: an unknown section or class, or see `load_prompts`.
    """
    entries = entries_of(classes, section, path)
    sets = {
        name: {code: [template.replace("{name}", entries[code]["name"])] for code in classes}
        for name, template in load_prompts(path)["templates"].items()
    }
    for name in WORDINGS:
        sets[name] = {code: list(entries[code][name]) for code in classes}
    sets[ENSEMBLE] = {code: [w for name in WORDINGS for w in sets[name][code]] for code in classes}
    sets[FINDING] = {c: list(entries[c].get(FINDING, entries[c]["report"])) for c in classes}
    return sets


def entries_of(
    classes: Sequence[str], section: str, path: str | Path | None = None
) -> dict[str, dict[str, Any]]:
    """{class: {"name", "report", "definition"}} of the classes. One of a user's own that the file
    has not is worded by its name.

    Raises:
      UserError: as `prompt_sets`.
    """
    if section not in (*SECTIONS, OWN):
        raise UserError(_unknown("section of the prompts", section, (*SECTIONS, OWN)))
    entries = load_prompts(path).get(section, {})
    if section == OWN:
        found = {code: entries.get(code) or _by_name(code) for code in classes}
        _check_all_apart(PROMPTS if path is None else Path(path), section, found)
        return found
    for code in classes:
        if code not in entries:
            raise UserError(_unknown(f"class in section [{section}] of the prompts", code, entries))
    return {code: entries[code] for code in classes}


def _by_name(code: str) -> dict[str, Any]:
    """Wordings of a class that has nothing but a name."""
    words = " ".join(code.replace("_", " ").split())
    sentence = f"{words.lower().rstrip('.')}."
    return {"name": words, "report": [sentence], "definition": [sentence]}


def load_prompts(path: str | Path | None = None) -> dict[str, dict[str, Any]]:
    """{"templates": {set: template}, section: {class: {"name", "report", "definition"}}}, and
    "finding" of classes that have it.

    Args:
      path: a file of one's own in the form of `prompts.toml`. Classes that it has take the place of
        this project's, and so do its templates, together; all else stays. Its section `labels` may
        have any classes.

    Raises:
      UserError: no such file, not TOML, an unknown section or class, a list that is empty or names
        a wording twice, a value of the wrong type.
    """
    shipped = _shipped()
    if path is None:
        return shipped
    path = storage.expanded(path)
    own = _read(path)
    merged = {section: {**shipped.get(section, {}), **entries} for section, entries in own.items()}
    if "templates" in own:
        merged["templates"] = own["templates"]
    for section in merged.keys() - {"templates"}:
        _check_all_apart(path, section, merged[section])
    return {**shipped, **merged}


@functools.cache
def _shipped() -> dict[str, dict[str, Any]]:
    return _read(PROMPTS)


def parse(path: Path) -> dict[str, Any]:
    """What a prompt file holds, of whatever form. Raises a UserError: no such file, or not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such prompt file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not a prompt file in TOML ({error})") from error


def _read(path: Path) -> dict[str, dict[str, Any]]:
    data = parse(path)
    if not data:
        raise UserError(f"{path}: holds no prompts")
    for section, entries in data.items():
        if section not in ("templates", *SECTIONS, OWN):
            known = ("templates", *SECTIONS, OWN)
            raise UserError(f"{path}: {_unknown('section', section, known)}")
        if not isinstance(entries, dict):
            raise UserError(f"{path}: {section!r} must be a section, [{section}.CLASS]")
        if section == "templates":
            _check_templates(path, entries)
        else:
            _check_section(path, section, entries)
    return data


def _check_templates(path: Path, templates: dict[str, Any]) -> None:
    for name, template in templates.items():
        where = f"{path}: [templates] {name}"
        if name in (*WORDINGS, ENSEMBLE, FINDING):
            raise UserError(f"{where}: this name is of the classes' own wordings: choose another")
        if not isinstance(template, str) or template.count("{name}") != 1:
            raise UserError(f"{where}: must be one text with {{name}} where the class's name goes")


def _check_section(path: Path, section: str, entries: dict[str, Any]) -> None:
    known = SECTIONS.get(section, entries)
    for code in entries:
        if code not in known:
            raise UserError(f"{path}: [{section}] has an {_unknown('class', code, known)}")
    for code, entry in entries.items():
        where = f"{path}: [{section}.{_quoted(code)}]"
        if not isinstance(entry, dict):
            raise UserError(f"{where} must hold name, report and definition")
        fields = ("name", *WORDINGS, FINDING)
        for field in entry:
            if field not in fields:
                raise UserError(f"{where} has an {_unknown('field', field, fields)}")
        _check_text(f"{where} name", entry.get("name"))
        for field in (*WORDINGS, *([FINDING] if FINDING in entry else [])):
            _check_list(f"{where} {field}", entry.get(field))
        _check_once(where, [wording for field in WORDINGS for wording in entry[field]])
        _check_once(where, entry.get(FINDING, []))
    _check_all_apart(path, section, entries)


def _check_all_apart(path: Path, section: str, entries: dict[str, Any]) -> None:
    for field in ("name", *WORDINGS):
        _check_apart(path, section, entries, field)


def _check_apart(path: Path, section: str, entries: dict[str, Any], field: str) -> None:
    """Raises a UserError for classes of one text: zero-shot cannot tell them apart."""
    seen: dict[str, str] = {}
    for code, entry in entries.items():
        texts = entry[field] if isinstance(entry[field], list) else [entry[field]]
        said = " ".join(sorted(" ".join(text.casefold().split()) for text in texts))
        if (other := seen.setdefault(said, code)) != code:
            raise UserError(
                f"{path}: [{section}.{_quoted(code)}] and [{section}.{_quoted(other)}] have one "
                f"and the same {field}, {texts[0]!r}: no class would be told from the other"
            )


def _check_once(where: str, wordings: Sequence[str]) -> None:
    for i, wording in enumerate(wordings):
        if wording in wordings[:i]:
            raise UserError(f"{where} has the wording {wording!r} twice: it would count double")


def _check_list(where: str, value: Any) -> None:
    if not isinstance(value, list) or not value:
        raise UserError(f"{where} must be a list of one or more texts, not {value!r}")
    for item in value:
        _check_text(f"{where}: each item", item)


def _check_text(where: str, value: Any) -> None:
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where} must be a text, not {value!r}")


def _unknown(kind: str, name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"unknown {kind}: {name!r}: " + (
        f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
    )


def _quoted(code: str) -> str:
    """A class code as a TOML key."""
    plain = code.isascii() and code.replace("_", "").replace("-", "").isalnum()
    return code if plain else f'"{code}"'


def listing(dataset: str, task: str, path: str | Path | None = None) -> str:
    """Each class of a dataset's task with the prompts of every set, for the terminal.

    Raises:
      UserError: an unknown dataset or task, or see `load_prompts`.
    """
    for kind, name, known in (("dataset", dataset, TASKS), ("task", task, TASKS.get(dataset, {}))):
        if name not in known:
            raise UserError(_unknown(kind, name, known))
    section, classes = TASKS[dataset][task]
    sets = prompt_sets(classes, section, path)
    entries = load_prompts(path)[section]
    lines = [f"{dataset} {task}: {len(classes)} classes of section [{section}]"]
    width = max(map(len, sets)) + 2
    for code in classes:
        lines += ["", f"{code}  {entries[code]['name']}"]
        for name, prompts in sets.items():
            if name != ENSEMBLE:
                first, *others = prompts[code]
                lines.append(f"  {name:<{width}}{first}")
                lines += [" " * (width + 2) + other for other in others]
    lines += ["", f"{ENSEMBLE} is {' and '.join(WORDINGS)} together"]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m ecg_jax.text.prompts", description="Shows which prompts serve which class."
    )
    parser.add_argument("--dataset", default="ptb_xl", help="default ptb_xl")
    parser.add_argument("--task", default="super", help="default super")
    parser.add_argument("--file", type=Path, help="a prompt file of your own")
    args = parser.parse_args()
    print(listing(args.dataset, args.task, args.file))


if __name__ == "__main__":
    run_main(main)
