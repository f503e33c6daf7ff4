"""Reading a model: what is found without a run, and what is not."""

from __future__ import annotations

import pytest
from onnx import parser
from onnx_prune.runtime import analysis, session

CLIP = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[N, 3, 2, 4, 4] x) => (float[A, B, C] y)
    <float[6, 3, 1, 1, 1] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9}, int64[3] target = {0, 6, -1}> {
      a = Conv (x, w)
      y = Reshape (a, target)
    }
    """


@pytest.fixture
def opened(monkeypatch):
    """The names of the models that were opened."""
    seen: list[str] = []
    real = session.open_session

    def open_session(model, **options):
        seen.append(model.graph.name)
        return real(model, **options)

    for module in (analysis.runnable_feeds, analysis.tensor_shapes):
        monkeypatch.setitem(module.__globals__, "open_session", open_session)
    return seen


def test_a_model_whose_sizes_fit_is_not_run_to_find_out(opened):
    found = analysis.analyse(parser.parse_model(CLIP))
    assert found.sizes == {"x": (1, 3, 2, 4, 4)}
    assert not opened


def test_a_model_that_reads_frames_is_run_to_find_how_many(opened):
    found = analysis.analyse(parser.parse_model(CLIP.replace("{0, 6, -1}", "{-1, 24, 32}")))
    assert found.sizes == {"x": (8, 3, 2, 4, 4)}
    assert opened
