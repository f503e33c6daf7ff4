"""Charts as SVG that takes its colours from the page: matplotlib draws, style sheets colour.

matplotlib is well kept, draws SVG that prints and needs no script, and its text stays text; the bundles of interactive
libraries weigh 1 to 5 MB in every report. Charts are narrow, so that they are read on a phone as they are.
"""

from __future__ import annotations

import importlib.util
import io
import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ...passes.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH, _HEIGHT = 4.6, 3.0  # inches
# Stand-ins in the drawing -> variables of the page.
INK, GRID, FAINT = "#010203", "#040506", "#070809"
SERIES = ("#a00001", "#a00002", "#a00003", "#a00004", "#a00005")
_VARIABLES = {INK: "--ink", GRID: "--line", FAINT: "--faint"} | {c: f"--s{n}" for n, c in enumerate(SERIES, 1)}
_DECADES = 1e-6  # what is smaller, of the highest, is nothing
_MANY = 5  # lines that are coloured and named; the others are faint


def require_matplotlib() -> None:
    """Raises UsageError where it is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("a report needs matplotlib", where="--report", fix="pip install 'onnx-prune[report]'")


def lines(
    name: str,
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    axes: tuple[str, str],
    *,
    log: bool = False,
    whole: bool = False,
) -> str:
    """Curves over one axis; the highest ones, by their ends and then by their means, are coloured and named.

    log: whether the vertical axis is logarithmic; whole: whether the horizontal one counts
    """
    highest = sorted(curves, key=lambda key: (-max(curves[key][1], default=0.0), -_mean(curves[key][1])))[:_MANY]
    peak = max((value for _, y in curves.values() for value in y), default=0.0)
    with _drawing(name) as (figure, axis):
        for key, (x, y) in curves.items():
            if key not in highest:
                axis.plot(x, y, color=FAINT, linewidth=0.9)
        for key, colour in zip(highest, SERIES, strict=False):
            axis.plot(*curves[key], color=colour, linewidth=1.8, marker="o", markersize=2.5, label=key)
        axis.set_xlabel(axes[0])
        axis.set_ylabel(axes[1])
        if log and peak > 0:
            axis.set_yscale("log")
            axis.set_ylim(bottom=max(_DECADES * peak, 0.5 * min(v for _, y in curves.values() for v in y if v > 0)))
        if whole:
            axis.xaxis.get_major_locator().set_params(integer=True)
        axis.legend(frameon=False, fontsize=7, labelcolor=INK, loc="best")
        return _svg(figure, name)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(len(values), 1)


def bars(name: str, rows: Mapping[str, tuple[float, float]], unit: str) -> str:
    """Before and after, a pair of bars a row, the largest first."""
    keys = sorted(rows, key=lambda key: rows[key][0])[-10:]
    with _drawing(name, height=0.9 + 0.33 * len(keys)) as (figure, axis):
        for offset, side, colour in ((0.2, 0, SERIES[0]), (-0.2, 1, SERIES[1])):
            places = [n + offset for n in range(len(keys))]
            axis.barh(places, [rows[k][side] for k in keys], 0.38, color=colour, label=("before", "after")[side])
        axis.set_yticks(range(len(keys)), keys)
        axis.set_xlabel(unit)
        axis.legend(frameon=False, fontsize=8, labelcolor=INK, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
        return _svg(figure, name)


def scatter(
    name: str, points: Sequence[tuple[float, float, bool, str]], axes: tuple[str, str], level: float | None = None
) -> str:
    """(x, y, marked, label) each; the marked ones are joined, level is a dashed line."""
    with _drawing(name) as (figure, axis):
        marked = sorted(point[:2] for point in points if point[2])
        axis.plot([x for x, _ in marked], [y for _, y in marked], color=SERIES[0], linewidth=1.2)
        for number, (x, y, chosen, label) in enumerate(sorted(points)):  # neighbours are named above and below
            axis.plot(x, y, "o", color=SERIES[0] if chosen else FAINT, markersize=6)
            axis.annotate(
                label, (x, y), xytext=(4, 5 if number % 2 else -10), textcoords="offset points", fontsize=7, color=INK
            )
        if level is not None:
            axis.axhline(level, color=SERIES[1], linewidth=1, linestyle="--")
        axis.margins(0.15)
        axis.set_xlabel(axes[0])
        axis.set_ylabel(axes[1])
        return _svg(figure, name)


@contextmanager
def _drawing(name: str, height: float = _HEIGHT) -> Generator[tuple[Figure, Axes]]:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    settings: dict[str, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,  # the same ids every time
        "font.size": 9,
        "font.family": "sans-serif",
        **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
        "axes.edgecolor": GRID,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with rc_context(settings):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        axis = figure.add_subplot()
        axis.grid(visible=True, color=GRID, linewidth=0.5)
        axis.set_axisbelow(True)
        yield figure, axis


def _svg(figure: Figure, name: str) -> str:
    """The drawing without its head, transparent, in the page's colours and font, with ids of its own."""
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|url\(#|xlink:href="#)', rf"\g<1>{name}-", text)
    text = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", text)
    for stand_in, variable in _VARIABLES.items():
        text = text.replace(stand_in, f"var({variable})")
    return text.replace("<svg ", '<svg role="img" ', 1)
