"""Self-contained HTML reports of headings, tables and bar charts.

Every text is escaped, and a report has no script and loads nothing: it may show text from strangers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;margin:1em 0}td,th{border:1px solid #ddd;padding:.3em .6em;"
    "text-align:left;vertical-align:top}th{background:#f5f2f7}.error{color:#b00020}"
    ".warning{color:#8a6100}figure{display:inline-block;margin:1em 1.5em 1em 0}"
    "figcaption{font-weight:600}svg text{font:11px system-ui,sans-serif;fill:#333}"
)


def render_page(title: str, *parts: str) -> str:
    """The whole page; `parts` are HTML from the other functions of this module."""
    return (
        '<!doctype html>\n<html><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>\n"
        f"<h1>{escape(title)}</h1>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def heading(text: str, level: int = 2) -> str:
    """A heading of the given level.

    >>> heading("a < b")
    '<h2>a &lt; b</h2>'
    """
    return f"<h{level}>{escape(text)}</h{level}>"


def paragraph(text: str) -> str:
    """A paragraph."""
    return f"<p>{escape(text)}</p>"


def table(
    head: Sequence[str], rows: Iterable[Sequence[object]], classes: Sequence[str] = ()
) -> str:
    """A table; `classes` names the CSS class of each row (error, warning), and may be shorter."""
    cells = "".join(f"<th>{escape(name)}</th>" for name in head)
    lines = [f"<tr>{cells}</tr>"]
    for number, row in enumerate(rows):
        style = f' class="{escape(classes[number])}"' if number < len(classes) else ""
        cells = "".join(f"<td>{escape(str(cell))}</td>" for cell in row)
        lines.append(f"<tr{style}>{cells}</tr>")
    return "<table>" + "\n".join(lines) + "</table>"


def bar_chart(title: str, values: Mapping[str, float], width: int = 420) -> str:
    """A bar chart as inline SVG, `width` pixels wide: label, bar and value a line; "" without values."""
    if not values:
        return ""
    largest, label = max(max(values.values()), 1e-9), 110  # pixels for the labels, on the left
    lines = []
    for number, (name, value) in enumerate(values.items()):
        y, long = number * 20, max(0.0, value) / largest * (width - label - 60)
        shown = f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
        lines.append(
            f'<text x="{label - 6}" y="{y + 14}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="{label}" y="{y + 3}" width="{long:.1f}" height="14" fill="#b07aa1"/>'
            f'<text x="{label + long + 5:.1f}" y="{y + 14}">{escape(shown)}</text>'
        )
    height = 20 * len(values)
    drawing = f'<svg width="{width}" height="{height}" role="img">{"".join(lines)}</svg>'
    return f"<figure><figcaption>{escape(title)}</figcaption>{drawing}</figure>"
