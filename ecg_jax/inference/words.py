"""Classes in words of one's own: read from a list, a text or a file, and embedded by the text model
that the encoder was trained against."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ecg_jax import Config
from ecg_jax.errors import UserError
from ecg_jax.evaluation.heads import Words
from ecg_jax.evaluation.protocols import zero_shot
from ecg_jax.text import prompts
from ecg_jax.text import tower as tower_lib
from ecg_jax.text.tower import TextTower

SAME = ("sha256", "vocab_sha256", "cased", "pooling")  # of the text model, or it is another one


def classes_of(given: Sequence[str] | Mapping[str, Any]) -> dict[str, list[str]]:
    """{class: its wordings}; a text is a class that is called and worded so.

    Raises:
      UserError: none, a class twice, an empty wording.
    """
    if isinstance(given, str):
        raise UserError("classes are a list of texts, or {name: [wordings]}; not one text")
    pairs = (
        [(name, [w] if isinstance(w, str) else list(w)) for name, w in given.items()]
        if isinstance(given, Mapping)
        else [(text, [text]) for text in given]
    )
    if not pairs:
        raise UserError("no class: name at least one, in words")
    for name, wordings in pairs:
        if not wordings or not all(isinstance(w, str) and w.strip() for w in (name, *wordings)):
            raise UserError(f"class {name!r} needs a name and one or more wordings")
    names = [name.strip() for name, _ in pairs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"class {twice[0]!r} is named twice")
    return {name.strip(): [w.strip() for w in wordings] for name, wordings in pairs}


def from_text(text: str) -> dict[str, list[str]]:
    """`text; text` -> classes. Raises as `classes_of`."""
    return classes_of([part.strip() for part in text.split(";") if part.strip()])


def from_file(path: Path) -> dict[str, list[str]]:
    """A TOML file of classes: `LBBB = ["complete left bundle branch block.", ...]`, alone or in
    sections, or `[section.LBBB]` with `report`, as in `ecg_jax/text/prompts.toml`.

    Raises:
      UserError: no such file, not TOML, a class without wordings, or as `classes_of`.
    """
    data = prompts.parse(path)
    found: dict[str, list[str]] = {}
    _collect(path, data, (), found)
    try:
        return classes_of(found)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _collect(path: Path, table: Mapping[str, Any], where: tuple[str, ...], found: dict) -> None:
    for name, value in table.items():
        if where == () and name == "templates":
            continue
        if isinstance(value, dict) and not {"report", "name"} & value.keys():
            if where:
                raise UserError(f"{path}: [{'.'.join((*where, name))}] has no `report`")
            _collect(path, value, (*where, name), found)
            continue
        if isinstance(value, dict):
            value = value.get("report") or value.get("name")
        if isinstance(value, str):
            value = [value]
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise UserError(f"{path}: {'.'.join((*where, name))} must be a list of texts")
        if name in found:
            raise UserError(f"{path}: class {name!r} is in two sections")
        found[name] = value


def load_tower(config: Config, described: Mapping[str, Any], folder: str | None) -> TextTower:
    """The text model that the encoder was trained against.

    Args:
      config: the run's.
      described: what config.json says of it, under "text_tower".
      folder: where its files are, if not where the run had them.

    Raises:
      UserError: it is not there, or another one is.
    """
    spec = folder or config.text.tower
    try:
        tower = tower_lib.load(spec, cased=described["cased"], pooling=described["pooling"])
    except UserError as error:
        raise UserError(
            f"classes in words need the text model {described['note']}, and {error} "
            "(text=FOLDER, or --text FOLDER, names a folder that has it)"
        ) from None
    differ = [name for name in SAME if tower.describe()[name] != described[name]]
    if differ:
        raise UserError(
            f"{spec} is not the text model that the encoder was trained against "
            f"({described['note']}): its {', '.join(differ)} differ"
        )
    return tower


def embedded(
    wordings: Mapping[str, Sequence[str]],
    tower: TextTower,
    encode: Any,
    words: Words,
    template: str,
) -> np.ndarray:
    """Class embeddings float32 [K, E] in the joint space, centred as the model's own are.

    Args:
      encode: the tower's embeddings [P, F] -> unit vectors [P, E].
      template: that reports were embedded with.
    """
    centre, found = words.arrays.get("text_centre"), {}
    for name, texts in wordings.items():
        x = np.asarray(encode(tower.embed(texts, template=template)))
        found[name] = x if centre is None else zero_shot.centred(x, centre)
    return zero_shot.class_embeddings(found)
