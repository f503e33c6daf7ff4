"""Every public model, pruned and proven: `python -m onnx_prune.tools.coverage` writes docs/coverage.md.

Each model runs in a process of its own, so that memory, crashes and endless runs are its own affair. Results are kept
as JSON lines, and an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import collections
import importlib.util
import json
import math
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .coverage_page import Row, render

if TYPE_CHECKING:
    import onnx

    from ..passes.channel_groups import ChannelGroups
    from ..passes.cost import CostModel
    from ..passes.model import Graph

_KEPT = 0.5  # of the MACs, what is asked for
_LIMIT_SECONDS = 1200
_SLOW = re.compile("vit_h_14|regnet_y_128gf|regnet_y_32gf|vit_l")  # several GB: at the end
_PRODUCTS = ("MatMul", "Einsum", "Attention", "Gemm")
_LARGEST_MESSAGE = 2**31 - 1  # bytes that protobuf, and so the checker, can take
# What differs from model to model in a reason, and what stands for it.
_SHORTER = (
    (r" '[^']*'", ""),
    (r"^at .* it meets", "it meets"),
    (r"^at .* channels stand as [\dx]+", "at a reshape of channels"),
    (r"\(operator \S+ has no rule\)", "(no rule)"),
)


@click.command()
@click.option("--only", metavar="REGEX", default="", help="Models whose names match.")
@click.option("--shared", type=click.Path(path_type=Path, file_okay=False), default="../shared", show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), default="docs/coverage.md")
@click.option("--fresh", is_flag=True, help="Run the models again that were run before.")
@click.option("--child", type=click.Path(path_type=Path, exists=True, dir_okay=False), hidden=True)
def coverage(only: str, shared: Path, output: Path, *, fresh: bool, child: Path | None) -> None:
    """Prune every model of the zoo, of the real ones and of the onnx package, and write the table."""
    if child is not None:
        click.echo(json.dumps(asdict(examine(child, shared))))
        return
    paths = list_models(shared)
    cache = Path(tempfile.gettempdir()) / "onnx-prune-coverage.jsonl"
    known = _read(cache)
    for path in paths:
        name = model_name(path)
        if re.search(only, name) and (fresh or name not in known):
            known[name] = _isolated(path, shared)
            with cache.open("a") as lines:
                lines.write(json.dumps(asdict(known[name])) + "\n")
            click.echo(f"{name}: {known[name].status}", err=True)
    rows = [known[model_name(path)] for path in paths if model_name(path) in known]
    output.write_text(render(rows, len(paths)))


def list_models(shared: Path) -> list[Path]:
    """The light models of the onnx package, the real ones, the zoo: small ones first, the largest at the end."""
    onnx_package = importlib.util.find_spec("onnx")
    assert onnx_package is not None
    assert onnx_package.origin is not None
    light = Path(onnx_package.origin).parent / "backend" / "test" / "data" / "light"
    zoo = sorted((shared / "zoo").glob("*.onnx.gz"), key=lambda p: (bool(_SLOW.search(p.name)), p.stat().st_size))
    return [*sorted(light.glob("*.onnx")), *sorted((shared / "real").glob("*.onnx")), *zoo]


def model_name(path: Path) -> str:
    """The file's name without its endings and the zoo's mark of the exporter."""
    return path.name.removesuffix(".gz").removesuffix(".onnx").removesuffix("-ts")


def examine(path: Path, shared: Path) -> Row:
    """Analyse, prune as far as asked or possible, prove and check one model."""
    from ..passes.errors import OnnxPruneError
    from ..passes.model import load
    from ..pipeline import analyse

    graph = load(_materialise(path, shared) if path.suffix == ".gz" else path)
    try:
        start = time.process_time()
        analysis = analyse(graph)
        seconds = time.process_time() - start
        groups, cost = analysis.groups, analysis.cost
        can_go = 1 - _least(cost)
        status, kept, proof = _prune(graph, max(_KEPT, math.ceil(1e4 * (1 - can_go)) / 1e4))
    except OnnxPruneError as error:
        return Row(model_name(path), path.parent.name, str(error).replace("\n", ";"), len(graph.gs.nodes))
    return Row(
        name=model_name(path),
        source=path.parent.name,
        status=status,
        nodes=len(graph.gs.nodes),
        seconds=seconds,
        convolutional=_is_convolutional(groups),
        can_go=can_go,
        kept=kept,
        proof=proof,
        free=len(groups.free),
        groups=len(groups.groups),
        pinned=_reasons(groups),
        peak=_peak(),
    )


def _prune(graph: Graph, share: float) -> tuple[str, float, float | None]:
    """Status, share of the MACs that is kept, and error of the proof."""
    import onnx

    from ..passes.budget import Budget
    from ..pipeline import prune

    if share >= 1:
        return "ok", 1.0, None
    result = prune(graph, budget=Budget(macs=share), measure=False)
    if result.report.size[1] < _LARGEST_MESSAGE:
        try:
            onnx.checker.check_model(result.model)
        except onnx.checker.ValidationError as error:
            return f"invalid: {error}", 1.0, result.report.proof
    before, after = result.plan.macs
    return "ok", after / before, result.report.proof


def _least(cost: CostModel) -> float:
    """The share of the MACs that stays when every free group keeps one unit."""
    whole = cost.macs(cost.units)
    least = [1 if free else int(units) for free, units in zip(cost.free, cost.units, strict=True)]
    return cost.macs(cost.units * 0 + least) / whole if whole else 1.0


def _is_convolutional(groups: ChannelGroups) -> bool:
    """More than one convolution, and no product of two activations (attention, correlation)."""
    labels = groups.labels
    nodes = labels.graph.gs.nodes
    weighted = {consumer.node for consumer in labels.consumers}
    products = any(nodes[t.node].op in _PRODUCTS and t.node not in weighted for t in labels.terms)
    return not products and sum("Conv" in node.op for node in nodes) > 1


def _reasons(groups: ChannelGroups) -> dict[str, int]:
    """Reason -> groups that it pins, without the names of this model."""
    count: collections.Counter[str] = collections.Counter()
    for group in groups.groups:
        if group.pinned is not None:
            reason = group.pinned
            for pattern, instead in _SHORTER:
                reason = re.sub(pattern, instead, reason)
            count[reason] += 1
    return dict(count.most_common())


def _peak() -> int:
    """Peak resident memory of this process in bytes; 0 where the system does not tell."""
    if sys.platform == "win32":
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _materialise(path: Path, shared: Path) -> onnx.ModelProto:
    """The skeleton with weights, by the zoo's own tool."""
    spec = importlib.util.spec_from_file_location("zoo", shared / "tools" / "zoo.py")
    assert spec is not None
    assert spec.loader is not None
    zoo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(zoo)
    return zoo.materialise(path)


def _isolated(path: Path, shared: Path) -> Row:
    command = [sys.executable, "-m", "onnx_prune.tools.coverage", "--child", str(path), "--shared", str(shared)]
    failed = Row(model_name(path), path.parent.name)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_SECONDS, check=False)  # noqa: S603 - our own
    except subprocess.TimeoutExpired:
        return Row(failed.name, failed.source, f"not done after {_LIMIT_SECONDS} s")
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return Row(failed.name, failed.source, f"exit code {done.returncode}: {last}")
    return Row(**json.loads(done.stdout.splitlines()[-1]))


def _read(cache: Path) -> dict[str, Row]:
    lines = cache.read_text().splitlines() if cache.exists() else []
    rows = [Row(**json.loads(line)) for line in lines]
    return {row.name: row for row in rows}


if __name__ == "__main__":
    coverage()
