"""What a run prints below its tables: how near the result is to the original, in words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx_prune
import pytest
from onnx_prune import models
from onnx_prune.tools.show import print_result


@pytest.mark.parametrize(
    ("measured", "words"),
    [
        ({"same_class": 0.94, "distance": 0.1}, "same top class as the original on 94.0% of 64 samples"),
        (
            {"same_class": 0.0, "distance": 0.1, "samples": 1},
            "on 0 of 1 sample, relative distance from the original's outputs 0.1: too few to say much",
        ),
        ({"same_class": None, "distance": 0.12}, "relative distance from the original's outputs 0.12 on 64 samples"),
    ],
)
def test_how_near_a_result_is_is_said_in_words(measured, words, capsys):
    result = onnx_prune.prune(models.digits_model(), calibration="none", measure=False)
    report = replace(result.report, **{"samples": 64, **measured})
    print_result(replace(result, report=report), Path("out.onnx"), None)
    assert words in " ".join(capsys.readouterr().out.split())
