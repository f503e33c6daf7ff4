"""Models of every kind are pruned, and the source is never touched."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx_prune import Budget, ReadError, prune

from .small_models import chain, decorated, with_constant_nodes

NEWEST_OPSET = 26  # ONNX Runtime 1.31's

HALF = Budget(macs=0.5)


@pytest.mark.parametrize("opset", range(7, NEWEST_OPSET + 1))
def test_every_opset_from_7_is_pruned_and_stays_what_it_is(opset):
    result = prune(chain(opset), budget=HALF, measure=False)
    assert result.report.proof < 1e-6
    assert [(o.domain, o.version) for o in result.model.opset_import] == [("", opset)]
    assert result.model.ir_version == 8


def test_an_opset_that_onnx_runtime_does_not_know_cannot_be_proved():
    with pytest.raises(ReadError, match="ONNX Runtime does not run the model"):
        prune(chain(onnx.defs.onnx_opset_version() + 50), budget=HALF, measure=False)


def test_weights_in_constant_nodes_are_cut_where_they_are():
    plain, moved = (prune(m, budget=HALF, measure=False) for m in (chain(), with_constant_nodes(chain())))
    assert [n.op_type for n in moved.model.graph.node] == ["Constant", "Constant", "Conv", "Relu", "Conv"]
    values = [numpy_helper.to_array(n.attribute[0].t) for n in moved.model.graph.node[:2]]
    for value, tensor in zip(values, plain.model.graph.initializer, strict=True):
        np.testing.assert_array_equal(value, numpy_helper.to_array(tensor))


def test_pruning_does_not_change_the_given_proto():
    model = decorated()
    before = model.SerializeToString(deterministic=True)
    prune(model, budget=HALF, measure=False)
    assert model.SerializeToString(deterministic=True) == before
