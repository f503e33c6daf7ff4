"""The words of refits, and the options of the one that trains."""

import pytest
from onnx_prune.passes.errors import UsageError
from onnx_prune.passes.selection.refits import Blocks, Distill, blocks_of, distill_of, refit_kind, refit_needs


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


def test_layers_may_be_fitted_together_and_are_before_a_distillation():
    assert blocks_of("sequential") is None
    assert blocks_of("blocks:layers=2,epochs=3,rate=0.01") == Blocks(2, 3, 0.01)
    assert blocks_of("distill:epochs=3") == Blocks()


@pytest.mark.parametrize("word", ["blocks:layers=0", "blocks:rate=0", "blocks:speed=3"])
def test_options_of_blocks_that_make_no_sense_are_refused(word):
    with pytest.raises(UsageError):
        refit_kind(word)
