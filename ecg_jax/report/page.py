"""report.html: one page, without network, scripts or fonts of its own."""

import os
import re
from typing import NamedTuple

from ecg_jax.errors import UserError
from ecg_jax.report import content as content_lib
from ecg_jax.report import curve_sections, gather, result_sections, sample_section, wave_section
from ecg_jax.report.content import Content
from ecg_jax.report.curve_figures import seed_legend, shared_axes, training_figures
from ecg_jax.report.document import document
from ecg_jax.report.map_figures import map_figure, prompt_table
from ecg_jax.report.markup import Markup, element, join
from ecg_jax.report.tables import scroll
from ecg_jax.runtime import storage
from ecg_jax.runtime.files import write_whole

LIMIT = 5_000_000  # bytes of the file
_UNSCORED, _UNKEPT = "no predictions", "none kept with the run"


class Section(NamedTuple):
    """A part of the page; `body` empty: it is left out, and `missing` says why. `note` is shown
    above it."""

    name: str
    body: Markup
    missing: str = ""
    note: str = ""


def render(content: Content) -> str:
    """The page as HTML, at most `LIMIT` bytes: where it would be more, curves of the classes with
    the fewest positives are left out, and recordings beyond a fifth of it.

    Raises:
      UserError: arrays that do not fit each other, two rows for one figure, or more than fits even
        without curves and recordings.
    """
    content_lib.check(content)
    figures, drawn = gather.gather(content.rows), content.drawn
    ranking, calibration = curve_sections.ranking(content), curve_sections.calibration(content)
    before = [
        Section(
            "Results",
            result_sections.results(content, figures),
            "no result rows",
        ),
        Section("Robustness", result_sections.robustness(figures), "not evaluated"),
        Section("Retrieval", result_sections.retrieval(figures), "not evaluated"),
    ]
    after = [
        Section("Confusion", curve_sections.confusion(content), _UNSCORED, drawn),
        Section("Prompts", _prompts(content), f"{_UNKEPT}; a method without text has none", drawn),
        Section("Map of records", _maps(content), _UNKEPT, drawn),
        Section("Training", _training(content), "no metrics of a training"),
    ]
    if content.waves:
        after.insert(0, Section("Waves", wave_section.waves(content.waves), note=drawn))

    def page(least: int, room: int) -> Markup:
        curves = [
            Section(name, curve_sections.shown(folds, least), _UNSCORED, drawn)
            for name, folds in (("ROC and precision-recall", ranking), ("Calibration", calibration))
        ]
        samples = sample_section.samples(content.samples, room)
        recordings = Section("Recordings", samples, f"{_UNKEPT}; scores choose them", drawn)
        return _whole(content, [*before, *curves, *after, recordings])

    least = curve_sections.fewest([*ranking, *calibration], _size(page(0, LIMIT // 5)) - LIMIT)
    room = LIMIT - _size(page(least, 0))
    if room < 0:
        raise UserError(
            f"report: {-room / 1e6:.1f} MB more than the {LIMIT / 1e6:g} MB that a page may have, "
            "without curves and recordings: give fewer rows or tasks"
        )
    return page(least, room)


def _size(page: Markup) -> int:
    return len(page.encode())


def write(content: Content, path: str | os.PathLike) -> None:
    """Writes the page, whole or not at all.

    Raises:
      UserError: as `render`; the file cannot be written.
    """
    write_whole(storage.path(path), render(content).encode())


def _whole(content: Content, sections: list[Section]) -> Markup:
    shown = [section for section in sections if section.body]
    absent = [f"{s.name} ({s.missing})" for s in sections if not s.body]
    items = [element("li", element("a", s.name, href=f"#{_id(s.name)}")) for s in shown]
    contents = (
        ""
        if not shown
        else element(
            "nav",
            element("h2", "Contents"),
            element("ul", *items),
            id="contents",
            aria_label="Contents",
        )
    )
    body = [
        element("a", "Skip to the content", href="#main", class_="skip"),
        element(
            "header",
            element("h1", content.title),
            _limits(content),
            _description(content),
            contents,
        ),
        shared_axes() if content.predictions else "",
        element("main", *map(_section, shown), _absent(absent), id="main", tabindex="-1"),
        element("a", "Contents", href="#contents", class_="up") if shown else "",
    ]
    return document(content.title, *body)


def _section(section: Section) -> Markup:
    name = _id(section.name)
    heading = element("h2", section.name, id=f"{name}-heading")
    note = element("p", section.note) if section.note else Markup("")
    labelled = dict(id=name, aria_labelledby=f"{name}-heading")
    return element("section", heading, note, section.body, **labelled)


def _absent(names: list[str]) -> Markup:
    if not names:
        return Markup("")
    return element("p", "Not part of this report: ", "; ".join(names), ".", class_="absent")


def _limits(content: Content) -> Markup:
    if not content.limits:
        return Markup("")
    items = [element("li", sentence) for sentence in content.limits]
    return element(
        "aside",
        element("h2", "Limits"),
        element("ul", *items),
        class_="limits",
        aria_label="Limits",
    )


def _description(content: Content) -> Markup:
    pairs = (
        element("div", element("dt", name), element("dd", value))
        for name, value in content.description
    )
    return element("dl", *pairs, class_="description") if content.description else Markup("")


def _prompts(content: Content) -> Markup:
    if not content.prompts:
        return Markup("")
    why = (
        "Mean cosine between a prompt (row) and the records of a class (column). Blue lies above "
        "the prompt's own mean, orange below it; the class that the prompt was written for is "
        "framed. A prompt that serves its class is bluest in its frame."
    )
    parts = [element("p", why)]
    for prompts in content.prompts:
        name = f"{prompts.dataset} {prompts.task}"
        table = scroll(prompt_table(prompts), f"{name}: prompts and classes")
        summary = element("summary", ": ".join(filter(None, [name, prompts.note])))
        parts.append(element("details", summary, table))
    return join(parts)


def _maps(content: Content) -> Markup:
    parts = []
    for embedding in content.embeddings:
        if len(embedding.label):
            name = f"{embedding.dataset} {embedding.task}"
            summary = element("summary", ": ".join(filter(None, [name, embedding.note])))
            parts.append(element("details", summary, map_figure(embedding), open=not parts))
    return join(parts)


def _training(content: Content) -> Markup:
    figures = training_figures(content.history)
    if not figures:
        return Markup("")
    return join([seed_legend(content.history), element("div", *figures, class_="panels")])


def _id(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
