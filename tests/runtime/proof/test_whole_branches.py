"""Branches that go entirely: the proof passes a right cut, and ends with exit code 5 where what is left is wrong."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx_prune.passes.channels.apply_removal import apply_removal
from onnx_prune.passes.errors import ProofError
from onnx_prune.passes.graph.export import to_model
from onnx_prune.passes.rewrite.simplify import simplified
from onnx_prune.runtime.analysis import analyse
from onnx_prune.runtime.proof.prove import prove_cut, prove_same

from .test_mutations import _edit, network

BLIND = ["plain", "argmax", "saturated sigmoid"]


def cut_of(head):
    """The inside of the block and the second of the joined layers go, the first of these loses one filter."""
    analysis = analyse(network(head))
    first = {g.name: next(iter(g.slices)).constant for g in analysis.groups.free}
    chosen = {"w1": 10, "w4": 6, "w3": 1}
    removed = {name: range(chosen[weight]) for name, weight in first.items() if weight in chosen}
    assert len(removed) == 3
    labels = analysis.groups.removed_labels(removed)
    return analysis, labels, apply_removal(analysis.groups.labelled, labels)


def _other_branch(model: onnx.ModelProto) -> None:
    """The layer that should have gone in the place of the one that should not."""
    whole = {t.name: numpy_helper.to_array(t) for t in network("plain").graph.initializer}
    for name, instead in (("w3", "w4"), ("b3", "b4")):
        _edit(name, lambda a, instead=instead: whole[instead].reshape(a.shape))(model)


WRONG: dict[str, Callable[[onnx.ModelProto], None]] = {
    "sign": _edit("c2", np.negative),
    "bias forgotten": _edit("c2", np.zeros_like),
    "bias folded twice": _edit("c2", lambda a: 2 * a),
    "bias of another channel": _edit("c2", lambda a: np.roll(a, 1, 1)),
    "one channel off": _edit("c2", lambda a: a + 0.05 * (np.arange(a.size).reshape(a.shape) == 3)),
    "the other operand dropped": _other_branch,
}


@pytest.mark.parametrize("head", BLIND)
def test_a_right_cut_passes_and_every_group_is_seen(head):
    analysis, labels, cut = cut_of(head)
    model = to_model(cut)
    assert not {"c1", "d", "c2", "q"} & {o for n in model.graph.node for o in n.output}
    proof = prove_cut(analysis.groups, labels, model, analysis.feeds)
    assert not proof.unseen
    assert proof.inner < 1e-4


@pytest.mark.parametrize("head", BLIND)
@pytest.mark.parametrize("mutate", WRONG.values(), ids=WRONG)
def test_a_wrong_rest_of_a_branch_is_found(head, mutate):
    analysis, labels, cut = cut_of(head)
    model = to_model(cut)
    mutate(model)
    with pytest.raises(ProofError) as caught:
        prove_cut(analysis.groups, labels, model, analysis.feeds)
    assert caught.value.exit_code == 5


def test_what_is_folded_is_compared_with_what_was_proved():
    analysis, _, cut = cut_of("plain")
    lean = to_model(simplified(cut))
    assert "Identity" not in {n.op_type for n in lean.graph.node if n.output[0] == "j"}
    prove_same(analysis.groups, lean, to_model(cut), analysis.feeds)
    _edit("c2", np.negative)(lean)
    with pytest.raises(ProofError):
        prove_same(analysis.groups, lean, to_model(cut), analysis.feeds)
