"""Every public model, pruned and proven: `python -m onnx_prune.tools.lab.coverage` writes docs/coverage.md.

Each model runs in a process of its own, so that memory, crashes and endless runs are its own affair. Rows are kept as
JSON lines beside the page, and an interrupted run goes on where it stopped. A job is one way through each model: ours,
the torch module's (extra `torch`), or a peer's (extra `bench`).
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
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .coverage_page import render
from .coverage_rows import KINDS, AnyRow, PeerRow, Row, TorchRow, append_row, read_rows, write_rows
from .peers import through_onnxsim

if TYPE_CHECKING:
    import onnx

    from ...passes.channels.cost import CostModel
    from ...passes.channels.groups import ChannelGroups
    from ...passes.graph.model import Graph

_KEPT = 0.5  # of the MACs, what is asked for
_LIMIT_SECONDS = {"onnx-prune": 1200, "onnxsim": 600, "torch": 600}
_AGREES = 1e-4  # of the largest output, torch and ONNX Runtime
_SLOW = re.compile("vit_h_14|regnet_y_128gf|regnet_y_32gf|vit_l")  # several GB: at the end
_PRODUCTS = ("MatMul", "Einsum", "Attention", "Gemm")
_APART_BYTES = 1 << 30
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
@click.option("--job", "jobs", type=click.Choice(list(KINDS)), multiple=True, help="Jobs to run; all by default.")
@click.option("--shared", type=click.Path(path_type=Path, file_okay=False), default="../shared", show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), default="docs/coverage.md")
@click.option("--fresh", is_flag=True, help="Run the models again that were run before.")
@click.option("--child", type=click.Path(path_type=Path, exists=True, dir_okay=False), hidden=True)
def coverage(only: str, jobs: Sequence[str], shared: Path, output: Path, *, fresh: bool, child: Path | None) -> None:
    """Prune every model of the zoo, of the real ones and of the onnx package, and write the tables."""
    if child is not None:
        click.echo(json.dumps(asdict(_JOBS[jobs[0]](child, shared))))
        return
    paths, kept = list_models(shared), output.with_suffix(".jsonl")
    rows = read_rows(kept)
    for job in jobs or KINDS:
        for path in paths:
            name = model_name(path)
            if re.search(only, name) and (fresh or (job, name) not in rows):
                rows[job, name] = _isolated(job, path, shared)
                append_row(kept, job, rows[job, name])
                click.echo(f"{job}, {name}: {rows[job, name].status}", err=True)
    write_rows(kept, rows)
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
    from ...passes.graph.model import load

    with tempfile.TemporaryDirectory() as folder:
        return _examined(path, load(_apart(filled(path, shared), Path(folder))))


def _examined(path: Path, graph: Graph) -> Row:
    from ...passes.errors import OnnxPruneError
    from ...pipeline.prune import inspect

    try:
        start = time.process_time()
        analysis = inspect(graph)
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

    from ...passes.selection.budget import Budget
    from ...pipeline.prune import prune

    if share >= 1:
        return "ok", 1.0, None
    result = prune(graph, budget=Budget(macs=share), calibration="none", measure=False)
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
    labelled = groups.labelled
    nodes = labelled.graph.gs.nodes
    weighted = {consumer.node for consumer in labelled.consumers}
    products = any(nodes[t.node].op in _PRODUCTS and t.node not in weighted for t in labelled.terms)
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


def filled(path: Path, shared: Path) -> onnx.ModelProto | Path:
    """The path of a model, or the skeleton with weights, by the zoo's own tool."""
    if path.suffix != ".gz":
        return path
    spec = importlib.util.spec_from_file_location("zoo", shared / "tools" / "zoo.py")
    assert spec is not None
    assert spec.loader is not None
    zoo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(zoo)
    return zoo.materialise(path)


def _apart(model: onnx.ModelProto | Path, folder: Path) -> onnx.ModelProto | Path:
    """A model of more than a GiB as users have it: a file, with its weights in another one."""
    import onnx

    from ...passes.graph.spill import weight_bytes

    if isinstance(model, Path) or weight_bytes(model) < _APART_BYTES:
        return model
    path = folder / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.data")
    return path


def _peer(path: Path, shared: Path) -> PeerRow:
    import onnx

    model = filled(path, shared)
    return through_onnxsim(model_name(path), onnx.load(model) if isinstance(model, Path) else model)


def _torch(path: Path, shared: Path) -> TorchRow:
    """How far the module is from ONNX Runtime; where it is far, how far that is from itself."""
    from ...passes.errors import UsageError
    from ...passes.graph.model import load
    from ...runtime.data.random_feeds import runnable_feeds
    from ...runtime.proof.compare import own_error
    from ...runtime.torch.agreement import agreement

    model = load(filled(path, shared)).source
    feeds = runnable_feeds(model, device="cpu")
    try:
        error = agreement(model, feeds).error
    except UsageError as refused:
        return TorchRow(model_name(path), refused.what)
    own = own_error(model, [feeds], device="cpu") if error > _AGREES else None
    return TorchRow(model_name(path), error=error, own=own)


_JOBS = {"onnx-prune": examine, "onnxsim": _peer, "torch": _torch}


def _isolated(job: str, path: Path, shared: Path) -> AnyRow:
    command = [sys.executable, "-m", "onnx_prune.tools.lab.coverage", "--job", job]
    command += ["--child", str(path), "--shared", str(shared)]
    name, limit = model_name(path), _LIMIT_SECONDS[job]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)  # noqa: S603 - our own
    except subprocess.TimeoutExpired:
        status = f"failed: not done after {limit} s"
    else:
        if done.returncode == 0:
            return KINDS[job](**json.loads(done.stdout.splitlines()[-1]))
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        status = f"failed: exit code {done.returncode}: {last}"
    kind = KINDS[job]
    return Row(name, path.parent.name, status) if kind is Row else kind(name, status)


if __name__ == "__main__":
    coverage()
