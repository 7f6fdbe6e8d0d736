"""The page in Chromium, where there is one: no error, nothing overflows, keys reach every part."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest
import report_content

from ecg_jax import report

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
    copy, policies = re.subn(r"<meta http-equiv=[^>]*>", "", path.read_text())
    assert policies == 1
    copy = copy.replace("</body>", f"<script>{MEASURE}</script></body>")
    (path.parent / "copy.html").write_text(copy)
    return path


pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium or google-chrome here")


def test_opens_without_errors(page):
    document, errors = browse(page)
    assert errors == ""
    assert document.count("<section") == 10 and "</html>" in document


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", WIDTHS)
def test_nothing_overflows_and_keys_reach_every_section(page, device, scheme):
    frame = page.with_name("frame.html")
    frame.write_text(FRAME % WIDTHS[device])
    switches = ["--window-size=1400,1000", *["--force-dark-mode"] * (scheme == "dark")]
    document, errors = browse(frame, *switches)
    assert errors == ""
    found = json.loads(unescape(re.search("<pre>(.*?)</pre>", document, re.S)[1]))
    assert (found["width"], found["dark"]) == (WIDTHS[device], scheme == "dark")
    assert found["wide"] == found["wide_open"] == []
    assert found["unfocused"] == found["jumps"] == found["unreached"] == []
    links = found["sections"]
    assert found["keys"][: 1 + len(links)] == ["#main", *links] and len(links) == 10
    assert found["keys"][-1] == "#contents"
    assert found["keys"].count("SUMMARY.") > 8 and found["keys"].count("DIV.scroll") > 8
