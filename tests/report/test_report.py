"""The report: well-formed, self-contained, safe, and drawn to scale."""

import dataclasses
import itertools
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import report_content
from report_content import CLASSES, LEADS

from ecg_jax import report
from ecg_jax.errors import UserError
from ecg_jax.evaluation.figures.predictions import Predictions
from ecg_jax.report import Content, Embedding, PromptMap, Sample, render

VOID = {"br", "col", "hr", "meta"}


class Walk(HTMLParser):
    """Reads a page and notes what is wrong with it."""

    def __init__(self, html: str):
        super().__init__(convert_charrefs=True)
        self.open, self.faults, self.tags, self.ids, self.attributes = [], [], [], [], []
        self.text: list[str] = []
        self.feed(html)
        self.close()
        self.faults += [f"{tag} is not closed" for tag in self.open]

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        names = [name for name, _ in attrs]
        if len(set(names)) < len(names):
            self.faults.append(f"{tag} has an attribute twice: {names}")
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> closes nothing")

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def content() -> Content:
    return report_content.content()


@pytest.fixture(scope="module")
def html(content: Content) -> str:
    return render(content)


def check_page(html: str) -> Walk:
    walk = Walk(html)
    assert walk.faults == []
    assert len(set(walk.ids)) == len(walk.ids)
    targets = [value for _, name, value in walk.attributes if name in ("href", "src", "data")]
    assert all(target[:1] == "#" and target[1:] in walk.ids for target in targets)
    assert not {"script", "link", "iframe", "object", "embed", "img", "base", "form"} & {*walk.tags}
    assert not [name for _, name, _ in walk.attributes if name.startswith("on")]
    assert (
        "url(" not in html
        and "@import" not in html
        and "http" not in html.replace('http-equiv="Content-Security-Policy"', "")
    )
    named = [v for _, n, v in walk.attributes if n in ("aria-labelledby", "for")]
    assert set(named) <= set(walk.ids)
    return walk


def test_page_is_well_formed_and_loads_nothing(html):
    walk = check_page(html)
    names = {"Results", "Robustness", "Retrieval", "Calibration", "Confusion", "Prompts"}
    assert {*names, "Waves", "Training", "Recordings"} <= {text.strip() for text in walk.text}
    headings = [int(tag[1]) for tag in walk.tags if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == 1 and headings.count(1) == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(headings))
    regions = [v for _, n, v in walk.attributes if n == "role" and v == "region"]
    assert len(regions) == sum(n == "tabindex" and v == "0" for _, n, v in walk.attributes) > 5
    assert walk.tags.count("svg") > 20 and len(html.encode()) < 500_000


def test_untrusted_text_is_shown_as_text(html):
    assert "<script" not in html and "<img" not in html and "\x00" not in html
    text = "".join(Walk(html).text)
    # title (twice), description (twice), limits, prompt, source (in a row, a note, a figure), ...
    assert text.count('<script>alert("planted")</script>"\'&<img src=x onerror=alert(1)>') >= 9


def test_empty_parts_are_left_out_with_a_sentence():
    html = render(Content("Nothing"))
    walk = check_page(html)
    text = " ".join("".join(walk.text).split())
    assert "Not part of this report: Results (no result rows); Robustness" in text
    assert "section" not in walk.tags and "Recordings (none kept with the run" in text


def test_figures_that_are_not_defined_are_dashes(html):
    text = "".join(Walk(html).text)
    assert not re.search(r"\b(nan|inf)\b", text, re.I)
    assert "NaN" not in html and 'd="Mnan' not in html
    assert "1 of 4 classes left out: no positive: RARE<i>" in text
    table = re.search(r"ptb_xl reports: retrieval</span>.*?(<tbody>.*?)</table>", html, re.S)[1]
    assert re.findall(r"<td>(.*?)</td>", table)[:2] == ["0.400", "\N{EN DASH}"]


def test_both_rules_stand_side_by_side_with_controls_and_published(html, content):
    table = re.search(r"<caption><span>ptb_xl super, zero-shot: macro.*?</table>", html, re.S)[0]
    heads = re.findall(r'<th scope="colgroup"[^>]*>(.*?)</th>', table)
    assert heads == ["corrected rule, 60 records", "paper rule, 60 records"]
    names = re.findall(r'<th scope="row">(.*?)[<&]', table)
    assert names == ["trained", "random encoder", "chance", ""]  # the last is the planted source
    own = [
        row
        for row in content.rows
        if (row["protocol"], row["encoder"], row["label"], row["metric"])
        == ("zero_shot", "trained", "macro", "auroc")
        and row["rule"] == "corrected"
    ]
    value = np.mean([row["value"] for row in own])
    trained = re.search(r'<tr><th scope="row">trained<small>2 seeds.*?</tr>', table, re.S)[0]
    cells = re.findall(r"<td>(.*?)</td>", trained)
    low, high = (np.mean([row[end] for row in own]) for end in ("ci_low", "ci_high"))
    interval = f"<small>{low:.3f}\N{EN DASH}{high:.3f}</small>"
    assert cells[0] == f"{value:.3f}{interval}<small>± 0.000</small>"
    chance = re.search(r'<th scope="row">chance.*?</tr>', table, re.S)[0]
    prevalence = content.predictions[0].y[:, :3].mean()
    assert re.findall(r"<td>(.*?)</td>", chance)[:2] == ["0.500", f"{prevalence:.3f}"]
    published = table[table.rindex("<tr") :]
    assert "0.546" in published and "0.123" not in table
    classes = re.search(r"ptb_xl super, zero-shot: by class.*?</table>", html, re.S)[0]
    cells = {
        name: re.findall(r"<td>([^<]*)", line)
        for name, line in re.findall(r'<th scope="row">(\w+).*?</th>(.*?)</tr>', classes, re.S)
    }
    y = content.predictions[0].y
    for k, name in enumerate(("CD", "MI", "NORM", "RARE")):
        expected = [f"{y[:, k].sum()}", f"{y[:, k].mean():.3f}"]
        assert cells[name][:2] == expected
        assert cells[name][-1] == ("0.123" if name == "MI" else "\N{EN DASH}")


def test_what_is_better_than_what(html):
    table = html[html.index("macro AUROC against other encoders") :]
    row = table[table.index("trained against random encoder") :]
    cells = re.findall(r"<td>([^<]*)</td>", row[: row.index("</tr>")])
    assert cells == ["0.130", "0.002", "0.004"]
    other = table[table.index("mean IoU") :]
    assert re.findall(r"<td>([^<]*)</td>", other)[0] == "0.050"


def test_training_has_a_line_for_each_seed_and_says_which(content):
    section = re.compile(r'<section id="training".*?</section>', re.DOTALL)
    alone, several = [{"step": step, "loss": 2.0, "seed": 3} for step in (1, 2)], []
    alone.append({"step": 1, "validation/knn": 0.7, "seed": 3})  # one point is no course
    for seed in (3, 5, 8):
        several += [{"step": step, "loss": 2.0 / step, "seed": seed} for step in (1, 2)]
    for step in (1, 2):
        several.append({"step": step, "validation/knn": 0.7, "seed": 5})  # of one seed alone
    drawn = {}
    for name, history in (("alone", alone), ("several", several)):
        page = render(dataclasses.replace(content, history=history))
        drawn[name] = section.search(page)[0]
    assert "legend" not in drawn["alone"] and drawn["alone"].count("<figure") == 1
    legend, figures = drawn["several"].split("</p>", 1)
    assert re.findall(r"seed \d(?=</span>)", legend) == ["seed 3", "seed 5", "seed 8"]
    strokes = re.findall(r'class="(curve [^"]*)"', legend)
    assert len(set(strokes)) == 3
    assert re.findall(r'class="(curve [^"]*)"', figures) == [strokes[1], *strokes]


def test_classes_are_compared_by_what_validation_made_of_their_scores(content):
    """A class whose cosines are lower in all records is none that is never found."""
    (shown, *_) = content.predictions
    rng = np.random.default_rng(1)
    y = np.eye(4, dtype=bool)[rng.integers(0, 3, 60)]
    score = (y + 0.1 * rng.standard_normal(y.shape) - [0, 0, 9, 0]).astype(np.float32)
    score[:, 3] = np.nan
    p = shown._replace(y=y, score=score)
    for validation, right in (([p], 60), ([], int(y[:, :2].sum()))):
        given = Content("t", predictions=[p], validation=validation)
        assert f"Confusion matrix: {right} of 60 records are right" in render(given)


def test_sensitivity_and_specificity_are_at_validations_threshold(content):
    p = content.predictions[0]
    cut = np.array([0.5, np.nan, 0.2, 0.5])
    words = {("ptb_xl", "super"): {"NORM": "normal ECG"}}
    page = render(
        dataclasses.replace(content, predictions=[p._replace(threshold=cut)], words=words)
    )
    table = re.search(r"Each of the 4 classes: zero-shot.*?</details>", page, re.DOTALL)[0]
    found = dict(re.findall(r'<th scope="row">(\w+)(.*?)</tr>', table, re.DOTALL))
    yes, y = p.score[:, 2] >= 0.2, p.y[:, 2]
    cells = re.findall("<td>(.*?)</td>", found["NORM"])
    assert cells[2] == f"{yes[y].mean():.3f}<small>{(yes & y).sum()} of {y.sum()}</small>"
    assert cells[3] == f"{(~yes)[~y].mean():.3f}<small>{(~yes & ~y).sum()} of {(~y).sum()}</small>"
    assert "<small>normal ECG" in found["NORM"]
    assert re.findall("<td>(.*?)</td>", found["MI"])[2] == "\N{EN DASH}"


def test_two_rows_for_one_figure_are_an_error(content):
    with pytest.raises(UserError, match="two result rows for ptb_xl, super, test, zero_shot"):
        render(dataclasses.replace(content, rows=[*content.rows, content.rows[0]]))


@pytest.mark.parametrize(
    ("field", "picture", "message"),
    [
        ("embeddings", Embedding("x", "super", np.zeros((3, 3)), np.zeros(3, int), CLASSES), "map"),
        ("samples", Sample("x", "y", "best", "7", np.zeros((9, 12)), 100, LEADS), "sample 7"),
        ("samples", Sample("x", "y", "best", "7", np.zeros((9, 8), np.int16), 100, LEADS), "leads"),
        ("prompts", PromptMap("x", "y", CLASSES, ["a"], ["CD"], np.zeros((2, 4))), "prompts"),
    ],
)
def test_arrays_that_do_not_fit_are_an_error(content, field, picture, message):
    with pytest.raises(UserError, match=message):
        render(dataclasses.replace(content, **{field: [picture]}))


def test_encoders_of_other_records_are_not_drawn_over_each_other(content):
    first, second, *rest = content.predictions
    moved = second._replace(record_id=second.record_id[::-1])
    with pytest.raises(UserError, match="not of the same records and classes"):
        render(dataclasses.replace(content, predictions=[first, moved, *rest]))


def test_samples_that_do_not_fit_are_left_out(content, monkeypatch):
    limit = 400_000
    monkeypatch.setattr("ecg_jax.report.page.LIMIT", limit)
    rng = np.random.default_rng(0)
    ecg = rng.integers(-3000, 3000, (5000, 12)).astype(np.int16)
    many = [
        Sample("ptb_xl", "super", kind, f"{kind}{i}", ecg, 500, LEADS)
        for kind in ("best", "worst")
        for i in range(4)
    ]
    html = render(Content("Many", samples=many))
    assert limit / 2 < len(html.encode()) <= limit
    check_page(html)
    drawn = {kind: html.count(f"<h4>Record {kind}") for kind in ("best", "worst")}
    assert drawn["best"] - drawn["worst"] in (0, 1)
    assert f"{8 - sum(drawn.values())} more recordings would not fit" in html


def test_a_page_that_is_too_large_without_curves_is_an_error(content, monkeypatch):
    monkeypatch.setattr("ecg_jax.report.page.LIMIT", 20_000)
    with pytest.raises(UserError, match=r"more than the 0.02 MB that a page may have"):
        render(content)


# Of PTB-XL's tasks: test records and classes.
WHOLE = dict(super=(2158, 5), sub=(2158, 23), diagnostic=(2158, 44), form=(880, 19))
WHOLE |= dict(rhythm=(2098, 12), all=(2198, 71))
FIVE = ("zero_shot", "linear_probe", "finetune", "supervised", "knn")


def random_content(tasks, protocols, rows=()) -> Content:
    rng = np.random.default_rng(0)
    predictions, samples = [], []
    for task in tasks:
        N, K = WHOLE[task]
        y = rng.random((N, K)) < np.geomspace(0.4, 0.01, K)
        classes, names = [f"{task}{k}" for k in range(K)], np.arange(N).astype(str)
        for protocol, (encoder, noise) in itertools.product(
            protocols, (("trained", 1), ("random", 4))
        ):
            score = (y + noise * rng.standard_normal((N, K))).astype(np.float32)
            about = (task, "ptb_xl", protocol, encoder, "corrected", 1.0, "", classes)
            predictions.append(Predictions(*about, names, names, y, score, np.zeros(K)))
        ecg = rng.integers(-800, 800, (5000, 12)).astype(np.int16)
        samples.append(Sample("ptb_xl", task, "best", task, ecg, 500, LEADS))
    return Content("Random", rows=rows, predictions=predictions, samples=samples)


def panels(html: str) -> tuple[list[int], int, set[int]]:
    """Positives of the classes whose ranking is drawn; how many panels are left out, and of
    classes with fewer positives than what."""
    drawn = [
        int(n.replace(",", "")) for n in re.findall(r"<span>([\d,]+) of [\d,]+ positive", html)
    ]
    told = re.findall(r"Left out are (\d+) more classes: they have fewer than (\d+) pos", html)
    return drawn, sum(int(n) for n, _ in told), {int(least) for _, least in told}


def test_the_whole_of_ptb_xl_fits(content):
    html = render(random_content(WHOLE, FIVE, content.rows))
    assert 4_000_000 < len(html.encode()) <= report.LIMIT == 5_000_000
    drawn, left_out, _ = panels(html)
    # 24 classes of a task at most; no probabilities of zero-shot's and k-NN's scores
    assert len(drawn) + html.count("Brier") + left_out == 107 * (5 + 3)
    assert html.count("<h4>Record ") == 6


def test_panels_of_the_rarest_classes_are_left_out(monkeypatch):
    given = random_content(["rhythm"], FIVE[:2])
    everything, none, _ = panels(render(given))
    assert none == 0 and len(everything) == 12 * 2
    limit = len(render(dataclasses.replace(given, samples=())).encode()) - 20_000
    monkeypatch.setattr("ecg_jax.report.page.LIMIT", limit)
    html = render(given)
    check_page(html)
    assert len(html.encode()) <= limit
    drawn, left_out, (least,) = panels(html)
    assert drawn == [n for n in everything if n >= least]
    assert 0 < len(drawn) < len(everything) and left_out > len(everything) - len(drawn)
    assert "1 recording would not fit" in html


def test_write_is_whole_or_not_at_all(tmp_path, content):
    path = tmp_path / "new" / "report.html"
    report.write(content, path)
    assert path.read_text() == render(content) and list(path.parent.iterdir()) == [path]
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        report.write(Content("x"), tmp_path / "file" / "report.html")


def contrast(a: np.ndarray, b: np.ndarray) -> float:
    """WCAG 2.2 contrast ratio of two sRGB colours (0-1)."""

    def luminance(c):
        linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_colours_have_the_contrast_of_wcag_aa(scheme):
    css = (Path(report.__file__).parent / "report.css").read_text()
    block = re.findall(r":root \{(.*?)\}", css, re.S)[scheme]
    colour = {
        name: np.array([int(value[i : i + 2], 16) for i in (0, 2, 4)]) / 255
        for name, value in re.findall(r"--([\w-]+): #(\w{6})", block)
    }
    for text in ("ink", "soft", "link"):
        for ground in ("ground", "raised"):
            assert contrast(colour[text], colour[ground]) >= 4.5, (text, ground)
    assert contrast(colour["ink"], colour["notice"]) >= 4.5
    assert contrast(colour["ecg-trace"], colour["ecg-paper"]) >= 4.5
    for k in range(8):
        assert contrast(colour[f"c{k}"], colour["ground"]) >= 3, k
    for k in (0, 1):  # numbers on the darkest cell of a matrix
        assert contrast(colour["ink"], (colour[f"c{k}"] + colour["ground"]) / 2) >= 4.5, k
