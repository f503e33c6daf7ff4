"""The words of refits, and the options of the one that trains."""

import pytest
from onnx_prune.passes.errors import UsageError
from onnx_prune.passes.selection.refits import Distill, distill_of, refit_kind, refit_needs


def test_a_refit_without_options_is_its_word():
    assert [refit_kind(word) for word in ("none", "full", "sequential")] == ["none", "full", "sequential"]
    assert distill_of("sequential") is None


def test_distillation_may_be_told_how_long_and_how_fast():
    assert refit_kind("distill:epochs=3,rate=0.01") == "distill"
    assert distill_of("distill:epochs=3,rate=0.01") == Distill(3, 0.01)
    assert distill_of("distill") == Distill()
    assert refit_needs("distill:epochs=3") == {"samples"}


@pytest.mark.parametrize("word", ["least-squares", "sequential:epochs=3", "distill:speed=3", "distill:epochs=0"])
def test_what_there_is_not_is_refused(word):
    with pytest.raises(UsageError):
        refit_kind(word)
