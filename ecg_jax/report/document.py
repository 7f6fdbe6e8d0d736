"""An HTML page without network, scripts or fonts of its own: its head, style and policy."""

from pathlib import Path

from ecg_jax.report.markup import Markup, element

_STYLE = Path(__file__).with_name("report.css")
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"  # what the browser may load: nothing


def document(title: str, *body: str) -> Markup:
    """The page; `body` is what stands in it."""
    head = [
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("title", title),
        element("style", Markup(_STYLE.read_text(encoding="utf-8"))),
    ]
    html = element("html", element("head", *head), element("body", *body), lang="en")
    return Markup(f"<!doctype html>\n{html}\n")
