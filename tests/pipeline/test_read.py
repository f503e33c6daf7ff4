"""What is read before anything is decided: how many synthetic images serve where there are no data."""

from __future__ import annotations

import pytest
from onnx import parser
from onnx_prune.pipeline import read
from onnx_prune.pipeline.settings import Settings
from onnx_prune.runtime.analysis import analyse


def net(size: int):
    return parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": 17]>
        g (float[N, 3, {size}, {size}] x) => (float[A, B, C, D] y) <float[1, 3, 1, 1] w = {{1, 2, 3}}> {{
          y = Conv (x, w)
        }}"""
    )


@pytest.mark.parametrize(("size", "images"), [(32, 512), (256, 128), (1024, 64)])
def test_large_images_are_fewer_so_that_drawing_them_takes_no_longer(monkeypatch, size, images):
    drawn = []
    monkeypatch.setattr(read, "synthetic_data", lambda *given: drawn.append(given[3]))
    read._synthetic_data(analyse(net(size)), Settings(calibration="synthetic"))
    assert drawn == [images]
