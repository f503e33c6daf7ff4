"""The pages about operators say what is so."""

from __future__ import annotations

import re
from pathlib import Path

import onnx
import pytest
from onnx.reference import ReferenceEvaluator
from onnx_prune.passes.channels import rules as package
from onnx_prune.passes.channels.apply_removal import apply_removal
from onnx_prune.passes.channels.silence import silence
from onnx_prune.passes.graph.export import to_model
from onnx_prune.tools.lab.operators_doc import document

DOCS = Path(__file__).resolve().parents[4] / "docs"


def test_operators_md_is_what_the_rules_say():
    assert (DOCS / "operators.md").read_text(encoding="utf-8") == document()


@pytest.mark.parametrize("key", list(package.rules()), ids=lambda key: ".".join(key).lstrip("."))
def test_every_rule_says_what_it_does_in_one_line(key):
    says = (package.rules()[key].labels.__doc__ or "").partition("\n")[0]
    assert says.endswith(".")


def example():
    """The names that the code of the page defines."""
    page = (DOCS / "adding_an_operator.md").read_text(encoding="utf-8")
    names = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(block, names)
    return names


def test_the_example_of_the_page_is_pruned_and_proven(graphs, monkeypatch):
    names = example()
    (rule,) = names["RULES"]
    model = graphs.parse(rule.samples["four groups"], double=True)
    assert not graphs.groups_of(model, sizes={}).free
    table = {**package.rules(), (rule.domain, rule.op): rule}
    monkeypatch.setattr(package, "rules", lambda: table)
    groups = graphs.groups_of(model)
    assert [g.units for g in groups.free] == [4]
    removed = groups.removed_labels({groups.free[0].name: [0, 2, 3]})
    cut, twin = to_model(apply_removal(groups.labelled, removed)), to_model(silence(groups.labelled, removed))
    onnx.checker.check_model(cut, full_check=True)
    feeds = graphs.random_feeds(model)
    first, second = (ReferenceEvaluator(m, new_ops=[names["ChannelShuffle"]]).run(None, feeds) for m in (cut, twin))
    assert graphs.difference(first, second) < 1e-12
    assert next(n for n in cut.graph.node if n.op_type == "ChannelShuffle").attribute[0].i == 1
