"""docs/house.svg shows the rooms as they are."""

from __future__ import annotations

from onnx_prune.tools.lab.house_picture import TARGET, picture, plainest, rooms


def test_the_picture_in_docs_is_that_of_the_sources():
    assert TARGET.read_text(encoding="utf-8") == picture(rooms()), "python -m onnx_prune.tools.lab.house_picture"


def test_an_arrow_that_a_longer_way_says_is_not_drawn():
    graph = {"a": {"b": 1, "c": 3}, "b": {"c": 1}, "c": {}}
    assert plainest(graph) == {"a": ["b"], "b": ["c"], "c": []}


def test_rooms_stand_above_what_they_import():
    graph = rooms()
    assert "passes/graph" in graph["passes/channels"]
    assert "passes/channels" not in graph["passes/graph"]
