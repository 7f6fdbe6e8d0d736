"""The page in Chromium, where there is one: no error, nothing overflows, keys reach every part."""

import dataclasses
import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import report_content

from ecg_jax import report
from ecg_jax.data.leads import LEADS
from ecg_jax.inference.scores import Scores
from ecg_jax.report import record_page

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
SWITCHES = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--enable-logging=stderr", "--virtual-time-budget=10000", "--dump-dom"),
)
WIDTHS = {"phone": 390, "desktop": 1280}
# What a copy of the page finds out about itself, its folds closed and then open.
MEASURE = """
const root = document.documentElement, all = [...document.querySelectorAll('*')], found = {};
const named = elements => elements.map(e => e.outerHTML.slice(0, 80));
const beyond = e => e.getBoundingClientRect().right > innerWidth + 1;
const wide = () => named([...(root.scrollWidth > innerWidth ? [root] : []),
  ...all.filter(e => !e.closest('.scroll, svg, .skip') && beyond(e))]);
found.width = innerWidth;
found.dark = matchMedia('(prefers-color-scheme: dark)').matches;
found.wide = wide();
document.querySelectorAll('details').forEach(e => e.open = true);
found.wide_open = wide();
const keys = all.filter(e => e.tabIndex >= 0 && !e.closest('svg'));
found.unfocused = named(keys.filter(e => (e.focus(), document.activeElement !== e)));
found.jumps = named(keys.filter(e => e.tabIndex > 0));
found.unreached = named(all.filter(e => /auto|scroll/.test(getComputedStyle(e).overflowX)
  && e.scrollWidth > e.clientWidth && e.tabIndex < 0));
found.keys = keys.map(e => e.getAttribute('href') || e.tagName + '.' + e.className);
found.sections = [...document.querySelectorAll('section')].map(e => '#' + e.id);
top.postMessage(JSON.stringify(found), '*');
"""
# A window is at least 500 pixels wide, a frame is as narrow as one likes.
FRAME = """<!doctype html><html><head><meta name="color-scheme" content="light dark"></head><body>
<pre></pre><iframe src="copy.html" style="border:0;width:%dpx;height:900px"></iframe><script>
onmessage = event => document.querySelector('pre').textContent = event.data;
</script></body></html>"""


def browse(path: Path, *switches: str) -> tuple[str, str]:
    """The document as it is in the end, and what went wrong."""
    profile = f"--user-data-dir={path.parent / 'profile'}"
    command = [CHROMIUM, profile, *SWITCHES, *switches, path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return done.stdout, "".join(re.findall(".*CONSOLE.*", done.stderr))


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """The page, and beside it a copy that may run a script."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    report.write(report_content.content(), path)
    measured(path)
    return path


def measured(path: Path) -> None:
    """Writes copy.html, the page with a script that measures it."""
    copy, policies = re.subn(r"<meta http-equiv=[^>]*>", "", path.read_text())
    assert policies == 1
    copy = copy.replace("</body>", f"<script>{MEASURE}</script></body>")
    (path.parent / "copy.html").write_text(copy)


pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium or google-chrome here")


def test_opens_without_errors(page):
    document, errors = browse(page)
    assert errors == ""
    assert document.count("<section") == 11 and "</html>" in document


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", WIDTHS)
def test_nothing_overflows_and_keys_reach_every_section(page, device, scheme):
    found = seen(page, device, scheme)
    links = found["sections"]
    assert found["keys"][: 1 + len(links)] == ["#main", *links] and len(links) == 11
    assert found["keys"][-1] == "#contents"
    assert found["keys"].count("SUMMARY.") > 8 and found["keys"].count("DIV.scroll") > 8


def seen(page: Path, device: str, scheme: str) -> dict:
    """What a page says of itself on a device; nothing may be wider than it, or out of reach."""
    frame = page.with_name("frame.html")
    frame.write_text(FRAME % WIDTHS[device])
    switches = ["--window-size=1400,1000", *["--force-dark-mode"] * (scheme == "dark")]
    document, errors = browse(frame, *switches)
    assert errors == ""
    found = json.loads(unescape(re.search("<pre>(.*?)</pre>", document, re.S)[1]))
    assert (found["width"], found["dark"]) == (WIDTHS[device], scheme == "dark")
    assert found["wide"] == found["wide_open"] == []
    assert found["unfocused"] == found["jumps"] == found["unreached"] == []
    return found


def test_the_page_of_a_recording(tmp_path):
    """On a phone in dark, with names that are markup, leads that are missing and no probability."""
    classes = ["A <b>", "a long name of a class that a narrow screen has no room for"]
    number = np.array([0.3, np.nan])
    scores = Scores(
        *("r", "super", "linear_probe", classes, classes, number, number, number),
        *(["AUROC 0.912 (0.887-0.934) on 2,198 test records", ""], "scores are logits", ["cut"]),
    )
    ecg = np.random.default_rng(0).normal(0, 300, (1000, 12)).astype(np.int16)
    found = [scores, dataclasses.replace(scores, task="own words", protocol="words")]
    facts = [("format", "CSV & more"), ("leads", ", ".join(LEADS))]
    page = record_page.render("r<1>.csv", ecg, np.arange(12) < 6, 100, facts, found, ["limits"])
    path = tmp_path / "r.html"
    path.write_text(page)
    _, errors = browse(path)
    assert errors == "" and "<b>" not in page.replace("<body>", "")
    assert "r&lt;1&gt;.csv" in page and page.count("not recorded") == 6
    measured(path)
    assert seen(path, "phone", "dark")["keys"].count("DIV.scroll") == 3
