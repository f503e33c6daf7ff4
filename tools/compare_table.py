"""The table of a comparison: as text, JSON, CSV and LaTeX. A method that has failed has a row that says why."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..pipeline.comparison.rows import Failed, Row

    Rows = Sequence[Row | Failed]

HEADS = (
    "method",
    "top-1 before",
    "after the cut",
    "after fine-tuning",
    "MACs kept",
    "parameters kept",
    "ms before",
    "ms after",
    "minutes",
)
PUBLISHED = ("paper before", "paper after", "paper change", "paper MACs cut", "paper quoted from")
FAILED = "failed"
_TOP5 = ("top-5 before", "top-5 after the cut", "top-5 after fine-tuning")
_NONE = "-"
_LATEX = str.maketrans({c: f"\\{c}" for c in "%&_#$"})


def write_tables(folder: Path, rows: Rows) -> None:
    """table.txt, table.json, table.csv and table.tex in that folder, each whole or not at all."""
    from ..passes.graph.files import write_text

    for suffix, text in (("txt", as_text), ("json", as_json), ("csv", as_csv), ("tex", as_latex)):
        write_text(folder / f"table.{suffix}", text(rows))


def as_text(rows: Rows) -> str:
    """Columns of equal width, for people."""
    heads, cells = _cells(rows)
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    lines = [heads, ["-" * width for width in widths], *cells]
    return "".join("  ".join([_aligned(line, widths)]).rstrip() + "\n" for line in lines)


def as_json(rows: Rows) -> str:
    """A list of rows; one that failed has its name and, under "failed", the error's three parts."""
    return json.dumps([_as_object(row) for row in rows], indent=1) + "\n"


def as_csv(rows: Rows) -> str:
    heads, cells = _cells(rows)
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerows([heads, *([("" if cell == _NONE else cell) for cell in line] for line in cells)])
    return file.getvalue()


def as_latex(rows: Rows) -> str:
    """A tabular of plain LaTeX, without packages."""
    heads, cells = _cells(rows)
    lines = [" & ".join(cell.translate(_LATEX) for cell in line) + r" \\" for line in (heads, *cells)]
    body = "\n".join([rf"\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}", r"\hline", lines[0], r"\hline", *lines[1:]])
    return f"{body}\n\\hline\n\\end{{tabular}}\n"


def _aligned(line: Sequence[str], widths: Sequence[int]) -> str:
    """The first column to the left, numbers to the right."""
    first, *rest = zip(line, widths, strict=True)
    return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)])


def _as_object(row: Row | Failed) -> dict[str, object]:
    said = asdict(row)
    return {"name": said.pop("name"), "failed": said} if "what" in said else said


def _cells(rows: Rows) -> tuple[list[str], list[list[str]]]:
    """The heads, and a line a row; what papers say, top-5 and errors stand there where a row has them."""
    from ..pipeline.comparison.rows import Row

    made = [row for row in rows if isinstance(row, Row)]
    published = any(row.published for row in made)
    five = any(row.before[1] < 1 for row in made)  # 10 classes have a top-5 too, but nobody reports it at 100 %
    heads = [*HEADS, *(_TOP5 if five else ()), *(PUBLISHED if published else ())]
    if len(made) == len(rows):
        return heads, [_line(row, five=five, published=published) for row in made]
    empty = [_NONE] * (len(heads) - 1)
    lines = [
        [*_line(row, five=five, published=published), _NONE] if isinstance(row, Row) else [row.name, *empty, row.what]
        for row in rows
    ]
    return [*heads, FAILED], lines


def _line(row: Row, *, five: bool, published: bool) -> list[str]:
    moments = (row.before, row.cut, row.tuned)
    times = row.milliseconds or (None, None)
    cells = [
        row.name,
        *(_percent(None if scores is None else scores[0]) for scores in moments),
        *(_percent(pair[1] / pair[0] if pair[0] else None, 1) for pair in (row.macs, row.params)),
        *(_NONE if time is None else f"{time:.3g}" for time in times),
        f"{row.minutes:.1f}",
    ]
    if five:
        cells += [_percent(None if scores is None else scores[1]) for scores in moments]
    if published:
        said = row.published or {}
        cells += [_NONE if said.get(n) is None else f"{said[n]:g}" for n in ("before", "after", "change", "cut")]
        cells.append("memory" if said.get("from_memory") else _NONE)
    return cells


def _percent(share: float | None, places: int = 2) -> str:
    return _NONE if share is None else f"{100 * share:.{places}f}"
