"""Small tables for notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def table(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]], note: str = "") -> str:
    """An HTML table with a caption; everything is text, and escaped. The first column is left, the others right."""
    head, body = _row("th", headings), "".join(_row("td", row) for row in rows)
    caption = f'<caption style="text-align:left"><b>{escape(title)}</b></caption>'
    below = f"<p>{escape(note)}</p>" if note else ""
    return f"<table>{caption}<thead>{head}</thead><tbody>{body}</tbody></table>{below}"


def _row(kind: str, cells: Sequence[str]) -> str:
    sides = ["left", *["right"] * (len(cells) - 1)]
    inside = (f'<{kind} style="text-align:{s}">{escape(c)}</{kind}>' for s, c in zip(sides, cells, strict=True))
    return f"<tr>{''.join(inside)}</tr>"
