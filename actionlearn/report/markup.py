"""Building blocks of a page that stands alone: escaped text, tables, pictures in the text, one style sheet, no scripts.

Everything that is not `Html` already is escaped where it enters, so text from files can only ever be read.
"""

from __future__ import annotations

import hashlib
import html
import re
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from actionlearn.pictures import GREY, picture

STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1c; --soft: #5c5c5c; --line: #dcdcdc; --grid: #e6e6e6;
  --paper: #ffffff; --box: #f5f6f7; --accent: #00629b; --good: #e2f3ec; --bad: #fdebe0; --blue: #0072b2; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8e8; --soft: #a8a8a8; --line: #3c3f42; --grid: #303336;
  --paper: #17191b; --box: #202326; --accent: #6cb8e6; --good: #14362a; --bad: #472a16; --blue: #46a6e0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 66rem; padding: 1rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0.5rem 0 0.25rem; }
h2 { font-size: 1.2rem; margin: 2.25rem 0 0.5rem; padding-top: 0.75rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.25rem 0 0.25rem; }
p, li { max-width: 46rem; }
a { color: var(--accent); }
nav { font-size: 0.9rem; line-height: 2; }
nav a { margin-right: 1rem; }
.soft, figcaption, dt { color: var(--soft); font-size: 0.9rem; }
.verdict { border-left: 6px solid var(--line); background: var(--box); border-radius: 4px; padding: 0.75rem 1rem; }
.verdict p { margin: 0.25rem 0; }
.verdict strong { font-size: 1.15rem; }
.good { background: var(--good); border-color: #009e73; }
.bad { background: var(--bad); border-color: #d55e00; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: 0.6rem; margin: 1rem 0; }
.facts div { background: var(--box); border-radius: 4px; padding: 0.5rem 0.75rem; }
.facts dt, .facts dd { margin: 0; }
.facts dd { font-size: 1.15rem; font-weight: 600; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.92rem; font-variant-numeric: tabular-nums; margin: 0.5rem 0; }
th, td { text-align: left; vertical-align: top; padding: 0.3rem 1rem 0.3rem 0; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; }
td.short { white-space: nowrap; }
@media (max-width: 30rem) { table { font-size: 0.85rem; } th, td { padding-right: 0.6rem; } }
.beside { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 0 2rem; }
.beside > * { min-width: 0; }
figure { margin: 0.5rem 0; }
figure svg { display: block; width: 100%; max-width: 34rem; height: auto; }
svg text { fill: currentColor; }
pre { background: var(--box); border-radius: 4px; padding: 0.6rem 0.8rem; margin: 0.4rem 0; font-size: 0.85rem;
  white-space: normal; overflow-x: auto; }
pre span { white-space: nowrap; }
code { font-family: ui-monospace, "DejaVu Sans Mono", monospace; }
summary { cursor: pointer; color: var(--accent); }
@media print { body { max-width: none; } h2, figure, table { break-inside: avoid; } }
"""

#: Inks of the pictures that follow the reader's choice of light or dark.
INKS = {
    "#222222": "var(--ink)",
    "#000000": "var(--ink)",
    GREY: "var(--soft)",
    "#e6e6e6": "var(--grid)",
    "#0072b2": "var(--blue)",
}


SHORT = 13
"""Letters up to which a cell of a table stays on one line."""


class Html(str):
    """Text that is markup already."""


def text(value: Any) -> Html:
    """A value as it may stand in a page: markup as it is, anything else escaped."""
    return value if isinstance(value, Html) else Html(html.escape(str(value)))


def join(parts: Iterable[Any]) -> Html:
    """Parts one below the other."""
    return Html("\n".join(text(part) for part in parts))


def paragraph(*parts: Any, soft: bool = False) -> Html:
    """Running text."""
    kind = ' class="soft"' if soft else ""
    return Html(f"<p{kind}>{''.join(text(part) for part in parts)}</p>")


def items(values: Iterable[Any]) -> Html:
    """A list, or nothing where there is nothing to list."""
    lines = "".join(f"<li>{text(value)}</li>" for value in values)
    return Html(f"<ul>{lines}</ul>" if lines else "")


def command(line: str) -> Html:
    """A command to copy; it wraps between its words alone."""
    words = " ".join(f"<span>{text(word)}</span>" for word in line.split(" "))
    return Html(f"<pre><code>{words}</code></pre>")


def link(address: str, words: str) -> Html:
    """Words that lead elsewhere."""
    return Html(f'<a href="{text(address)}">{text(words)}</a>')


def facts(pairs: Iterable[tuple[str, Any]]) -> Html:
    """A few numbers with their names, side by side as the width allows."""
    return Html(
        '<dl class="facts">' + "".join(f"<div><dt>{text(a)}</dt><dd>{text(b)}</dd></div>" for a, b in pairs) + "</dl>"
    )


def table(header: Sequence[Any], rows: Iterable[Sequence[Any]]) -> Html:
    """A table that scrolls by itself where the screen is narrower."""
    head = "".join(f"<th>{text(name)}</th>" for name in header)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return Html(f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>')


def _cell(value: Any) -> str:
    kind = ' class="short"' if len(str(value)) <= SHORT else ""
    return f"<td{kind}>{text(value)}</td>"


def folded(title: str, *parts: Any) -> Html:
    """Something that opens when its title is clicked."""
    return Html(f"<details><summary>{text(title)}</summary>{join(parts)}</details>")


def beside(*parts: Html) -> Html:
    """Parts side by side, or below each other on a narrow screen."""
    return Html(f'<div class="beside">{"".join(f"<div>{part}</div>" for part in parts)}</div>')


def figure(draw: Callable[[Axes], object], caption: str) -> Html:
    """A drawing in the text, as vectors with letters in the page's own inks."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "drawing.svg"
        with picture(path, width=5.0, height=3.5) as (axes,):
            draw(axes)
        drawing = path.read_text(encoding="utf-8")
    drawing = drawing[drawing.index("<svg") :]  # without the XML declaration, which a page has no place for
    drawing = re.sub(r"<metadata>.*?</metadata>", "", drawing, flags=re.DOTALL)
    drawing = re.sub(r'(<svg [^>]*?) width="[^"]*"', r"\1", drawing)
    drawing = re.sub(r'(<svg [^>]*?) height="[^"]*"', r"\1", drawing)
    drawing = re.sub(r"(?<=: )white|#ffffff", "var(--paper)", drawing)
    for ink, name in INKS.items():
        drawing = drawing.replace(ink, name)
    own = hashlib.sha256(drawing.encode()).hexdigest()[:8]  # names within a page must differ
    drawing = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>f{own}-", drawing)
    named = f'<svg role="img" aria-label="{text(caption)}"'
    return Html(f"<figure>{drawing.replace('<svg', named, 1)}<figcaption>{text(caption)}</figcaption></figure>")


def page(title: str, head: Html, sections: Sequence[tuple[str, str, Html]]) -> str:
    """The whole page: a head, then sections of (name of the anchor, title, content) with a list of them in front."""
    contents = "".join(f'<a href="#{text(anchor)}">{text(name)}</a> ' for anchor, name, _ in sections)
    body = "\n".join(
        f'<section id="{text(anchor)}"><h2>{text(name)}</h2>\n{content}</section>' for anchor, name, content in sections
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{text(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<header>
{head}
<nav aria-label="Contents">{contents}</nav>
</header>
<main>
{body}
</main>
</body>
</html>
"""
