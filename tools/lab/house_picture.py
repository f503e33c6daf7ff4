"""docs/house.svg: the rooms of the project and which of them imports which, read from the sources.

python -m onnx_prune.tools.lab.house_picture writes the picture again. A room is a folder, or a file that stands beside
the folders of its floor; an arrow leads from the room that imports to the room that is imported, by any import;
what a way over other rooms says already is not drawn again.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = ROOT / "docs" / "house.svg"
FLOORS = ("tools", "pipeline", "runtime", "passes", "models")  # from the top
_LEFT, _STEP, _WIDE, _HIGH, _GAP = 110, 152, 128, 36, 34
_STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #1b2430; }
.room { fill: #eef4fb; stroke: #3b6ea5; } .floor { stroke: #c9d3de; stroke-dasharray: 3 4; }
.arrow { fill: none; stroke: #7d8b9a; stroke-width: 1.1; opacity: 0.75; }
@media (prefers-color-scheme: dark) { text { fill: #e4e9ef; }
.room { fill: #22303f; stroke: #7fb0e0; } .floor { stroke: #445261; } svg { background: #12171d; } }"""


def rooms() -> dict[str, dict[str, int]]:
    """Room -> the rooms it imports, each with the number of imports; rooms are named "passes/channels" or "runtime"."""
    files = {file.relative_to(ROOT): _room(file.relative_to(ROOT)) for floor in FLOORS for file in _sources(floor)}
    graph: dict[str, dict[str, int]] = {room: {} for room in sorted(set(files.values()))}
    for path, room in files.items():
        for target in _imported(path):
            if target in graph and target != room:
                graph[room][target] = graph[room].get(target, 0) + 1
    return graph


def _sources(floor: str) -> Iterator[Path]:
    return (file for file in sorted((ROOT / floor).rglob("*.py")) if file.name != "__init__.py")


def _room(path: Path) -> str:
    """Two deep at most; a file that stands beside the rooms of its floor is a room of its own, if it is no command."""
    alone = len(path.parts) == 2 and path.parts[0] in ("passes", "runtime")
    return path.with_suffix("").as_posix() if alone else "/".join(path.parent.parts[:2])


def _imported(path: Path) -> Iterator[str]:
    package = path.parent.parts
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = Path(*package[: len(package) - node.level + 1], *(node.module or "").split("."))
            for alias in node.names:
                for module in (base / f"{alias.name}.py", base.with_suffix(".py"), base / "__init__.py"):
                    if (ROOT / module).is_file():
                        yield _room(module)
                        break


def _heights(graph: dict[str, dict[str, int]], members: list[str]) -> list[list[str]]:
    """The rooms of one floor in rows: each above all that it imports."""
    rows: dict[str, int] = {}

    def row(room: str) -> int:
        if room not in rows:
            rows[room] = 1 + max((row(other) for other in graph[room] if other in members), default=-1)
        return rows[room]

    table: list[list[str]] = [[] for _ in range(1 + max(row(room) for room in members))]
    for room in members:
        table[rows[room]].append(room)
    return table[::-1]


def plainest(graph: dict[str, dict[str, int]]) -> dict[str, list[str]]:
    """The arrows that no way over other rooms says already (the transitive reduction)."""

    def reached(room: str) -> set[str]:
        return {room}.union(*(reached(other) for other in graph[room]))

    below = {room: reached(room) for room in graph}
    return {
        room: [other for other in needs if not any(other in below[third] for third in needs if third != other)]
        for room, needs in graph.items()
    }


def picture(graph: dict[str, dict[str, int]]) -> str:
    """The whole as SVG, the floors from the top down."""
    places: dict[str, tuple[int, int]] = {}
    shapes, y = [], 30
    for floor in FLOORS:
        shapes.append(f'<text x="12" y="{y + 24}">{floor}/</text>')
        for line in _heights(graph, [room for room in graph if room.split("/")[0] == floor]):
            left = _LEFT + (_STEP // 2) * (len(places) % 2) + (2 * _STEP if floor == "models" else 0)
            places.update({room: (left + i * _STEP, y) for i, room in enumerate(line)})
            y += _HIGH + _GAP
        shapes.append(f'<line class="floor" x1="0" x2="100%" y1="{y - 12}" y2="{y - 12}"/>')
        y += 10
    arrows = [_arrow(places[a], places[b]) for a, needs in plainest(graph).items() for b in needs]
    boxes = [_box(room, *places[room]) for room in graph]
    width = max(x for x, _ in places.values()) + _STEP
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y}" role="img">'
    marker = (
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="#7d8b9a"/></marker></defs>'
    )
    title = "<title>The house: an arrow leads from a room to one that it imports; none leads up</title>"
    return "\n".join([head, title, f"<style>{_STYLE}</style>", marker, *shapes, *arrows, *boxes, "</svg>"]) + "\n"


def _arrow(start: tuple[int, int], end: tuple[int, int]) -> str:
    x1, y1, x2, y2 = start[0] + _WIDE // 2, start[1] + _HIGH, end[0] + _WIDE // 2, end[1]
    bend = max(18, (y2 - y1) // 3)
    return f'<path class="arrow" marker-end="url(#tip)" d="M{x1} {y1}C{x1} {y1 + bend} {x2} {y2 - bend} {x2} {y2}"/>'


def _box(room: str, x: int, y: int) -> str:
    return (
        f'<rect class="room" x="{x}" y="{y}" width="{_WIDE}" height="{_HIGH}" rx="6"/>'
        f'<text x="{x + 10}" y="{y + 23}">{escape(room.rsplit("/", maxsplit=1)[-1])}</text>'
    )


def main() -> None:
    TARGET.write_text(picture(rooms()), encoding="utf-8")


if __name__ == "__main__":
    main()
