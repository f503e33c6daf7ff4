"""Fine-tuning on the ONNX graph itself: the model before pruning teaches the pruned one, and labels help."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import asdict, replace

import numpy as np
import onnx
import torch

from ....passes.errors import ProofError, UsageError
from ....passes.rewrite.batch_norm import fold_batch_norms, normalisable
from ....passes.rewrite.redraw import drawn_anew
from ...data.inputs import model_inputs
from ...data.sources import Batch
from ...device import Device
from ...session import open_session
from ..graph_module import GraphModule, refuse_half
from ..place import torch_device
from .batch_norm import insert_batch_norms
from .checkpoint import Checkpoint, run_key
from .data import Share, TrainingData, training_data
from .distributed import Processes, joined
from .loop import MEASURED, Pair, Training
from .losses import make_step_loss
from .recipe import Recipe
from .run import Epoch, Examples, FineTuned, Keeping, Watch

AfterEpoch = Callable[[GraphModule, int], None]
_AGREEMENT = 1e-4  # of the largest output: what the written model may differ from the trained module
_COMPARED = 16  # samples to compare outputs on


def finetune(
    model: onnx.ModelProto,
    examples: Examples,
    recipe: Recipe | None = None,
    *,
    keeping: Keeping | None = None,
    device: Device = "auto",
    watch: Watch | None = None,
    after_epoch: AfterEpoch | None = None,
) -> FineTuned:
    """Train the weights of `model`; the same nodes and names come back, in ONNX's own types.

    after_epoch: what is done to the weights when an epoch ends (so many are left), before they are measured; the last
    epoch's stay then. Running statistics are measured anew behind it: what they were was of other weights.
    Started by torchrun, every process calls this and gets the same result; the first one should write it.
    Raises UsageError for what makes no sense, AccuracyError where the training diverges, KeyboardInterrupt where it was
    asked to stop (SIGINT, SIGTERM), with its state kept.
    """
    keeping, watch = keeping or Keeping(), watch or Watch()
    begun = time.perf_counter()
    _check_teacher(model, examples.teacher)
    place = torch_device(device)
    with joined(place.type) as processes:
        place = torch.device(place.type, torch.cuda.current_device()) if place.type == "cuda" else place
        recipe = _fitting(model, (recipe or Recipe()).settled(gentle=after_epoch is None), processes)
        key = run_key([model, examples.teacher], asdict(replace(recipe, workers=0)), _words(examples), processes.count)
        checkpoint = None if keeping.folder is None else Checkpoint(keeping.folder, key)
        inputs = model_inputs(model)
        data = training_data(examples.train, inputs, examples.preprocessing, recipe, place, watch.stage)
        tests = _evaluation(examples, model, recipe, place, watch)
        begin = _with_batch_norms(model, data, recipe)
        student = GraphModule(drawn_anew(begin, recipe.seed) if recipe.scratch else begin).to(place)
        student.frozen_statistics = bool(recipe.frozen_statistics)
        teacher = _teacher(examples, data, recipe, place)
        pair = Pair(trainable(student), teacher)
        training = Training(pair, data, tests, recipe, processes)
        saved = None if checkpoint is None else _saved(checkpoint, processes, resume=keeping.resume)
        if saved is not None:
            training.restore(saved)
        _train(training, checkpoint if processes.first else None, keeping.seconds, watch, after_epoch)
        return written(training, processes, time.perf_counter() - begun)


def _check_teacher(model: onnx.ModelProto, teacher: onnx.ModelProto | None) -> None:
    """Raise UsageError where the teacher does not read what the model reads, or says something else."""
    if teacher is None:
        return
    mine, theirs = model_inputs(model), model_inputs(teacher)
    if len(mine) != len(theirs) or not all(a.takes(b) for a, b in zip(mine, theirs, strict=True)):
        differing = f"it reads {', '.join(map(str, theirs))}; the model reads {', '.join(map(str, mine))}"
    else:
        said, wanted = ([value.name for value in one.graph.output] for one in (teacher, model))
        if said == wanted:
            return
        differing = f"its outputs are {', '.join(said)}; those of the model are {', '.join(wanted)}"
    raise UsageError(
        "the teacher has another interface than the model",
        where=f"--teacher: {differing}",
        fix="give the model before it was pruned",
    )


def _teacher(examples: Examples, data: TrainingData, recipe: Recipe, place: torch.device) -> GraphModule | None:
    """None as well where the labels alone count: what it says would be computed for nothing."""
    alone = recipe.labels == 1 and data.classes is not None and not recipe.features
    if examples.teacher is None:
        return None
    teacher = GraphModule(examples.teacher).to(place).eval()
    return None if alone and _classifies(teacher, data, recipe) else teacher


def _classifies(teacher: GraphModule, data: TrainingData, recipe: Recipe) -> bool:
    """Whether it has an output that labels say something of."""
    count = min(recipe.batch, data.samples.count)
    inputs, _ = next(data.batches([Share(np.arange(count))]))
    with torch.no_grad():
        example = teacher(*inputs)
    return make_step_loss(recipe, example, count, taught=True, classes=data.classes).labelled


def _words(examples: Examples) -> list[object]:
    """Data as text; of arrays their names alone."""
    sources = [examples.train, examples.evaluation]
    return [*(sorted(s) if isinstance(s, Mapping) else s for s in sources), examples.preprocessing]


def _fitting(model: onnx.ModelProto, recipe: Recipe, processes: Processes) -> Recipe:
    """The recipe with the batch that the model fixes, if it does."""
    fixed = model_inputs(model)[0].batch
    if fixed:
        return replace(recipe, batch=fixed * processes.count)
    if recipe.batch < processes.count:
        raise UsageError(
            f"a batch of {recipe.batch} for {processes.count} processes", where="--batch", fix="give a larger --batch"
        )
    return recipe


def _saved(checkpoint: Checkpoint, processes: Processes, *, resume: bool) -> dict | None:
    """What was kept; the first process cleans up before the others look."""
    if processes.first:
        checkpoint.prepare()
    processes.wait()
    return checkpoint.load(resume=resume)


def _evaluation(
    examples: Examples, model: onnx.ModelProto, recipe: Recipe, device: torch.device, watch: Watch
) -> TrainingData | None:
    if examples.evaluation is None:
        return None
    plain = replace(recipe, augment=(), train_samples=0)
    return training_data(examples.evaluation, model_inputs(model), examples.preprocessing, plain, device, watch.stage)


def _with_batch_norms(model: onnx.ModelProto, data: TrainingData, recipe: Recipe) -> onnx.ModelProto:
    """The same function, with a BatchNormalization behind each convolution that has none."""
    if not recipe.batch_norm or not normalisable(model.graph):
        return model
    chosen = data.drawn(MEASURED, data.batch or recipe.batch, np.random.default_rng(recipe.seed))
    batches = data.batches([Share(part) for part in chosen])
    feeds = (dict(zip(data.names, (x.cpu().numpy() for x in inputs), strict=True)) for inputs, _ in batches)
    return insert_batch_norms(model, (Batch(one, None) for one in feeds), device=data.device)


def trainable(student: GraphModule) -> GraphModule:
    refuse_half(student, fix="fine-tune the float32 model, and convert the result")
    if not student.parameter_names:
        raise UsageError(
            "the model has no weights that could be trained", where="the model", fix="give a model of float32 weights"
        )
    return student


# ---- the run


def _train(
    training: Training, checkpoint: Checkpoint | None, seconds: float, watch: Watch, after_epoch: AfterEpoch | None
) -> None:
    """Epochs to the end, the state kept after each of them, now and then between, and when a signal asks to stop."""
    choose = training.evaluation is not None and after_epoch is None
    if not training.epochs:
        first = Epoch(0, None, None, training.measure(), 0.0, 0.0)
        training.note(first, choose=choose)
        watch.epoch(first)
    kept = time.perf_counter()
    with asked_to_stop() as asked:

        def tick() -> bool:
            nonlocal kept
            if checkpoint is not None and time.perf_counter() - kept > seconds:
                checkpoint.save(training.state())
                kept = time.perf_counter()
            return asked()

        while training.epoch < training.rounds:
            if training.run_epoch(tick, watch.stage):
                if checkpoint is not None:
                    checkpoint.save(training.state())
                raise KeyboardInterrupt
            if after_epoch is not None:
                after_epoch(training.student, training.rounds - training.epoch - 1)
                training.renew_statistics()
            watch.epoch(training.finish_epoch(choose=choose))
            if checkpoint is not None:
                checkpoint.save(training.state())
                kept = time.perf_counter()


@contextlib.contextmanager
def asked_to_stop() -> Generator[Callable[[], bool]]:
    """Whether SIGINT or SIGTERM came; a second SIGINT stops at once. Signals are the main thread's."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    came = threading.Event()

    def note(number: int, _frame: object) -> None:
        if came.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        came.set()

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# ---- the result


def written(training: Training, processes: Processes, seconds: float) -> FineTuned:
    """The best weights in the graph, compared in ONNX Runtime with the module that they come from."""
    assert training.best is not None
    student = training.student
    student.load_state_dict(training.best["weights"])
    model = fold_batch_norms(student.to_model())
    difference = _agreement(student, model, training.data) if processes.first else 0.0
    return FineTuned(model, tuple(training.epochs), training.best["epoch"], difference, seconds, processes.first)


def _agreement(student: GraphModule, model: onnx.ModelProto, data: TrainingData) -> float:
    """The largest difference of outputs, over the largest output. Raises ProofError where that is much."""
    count = data.batch or min(_COMPARED, data.samples.count)
    inputs, _ = next(data.batches([Share(np.arange(count))]))
    tensors = [tensor.cpu() for tensor in inputs]
    student.cpu().eval()
    with torch.no_grad():
        wanted = student(*tensors)
    feeds = {name: tensor.numpy() for name, tensor in zip(student.input_names, tensors, strict=True)}
    got = open_session(model, device="cpu").run(feeds)
    worst = 0.0
    for name, value in zip(student.output_names, wanted, strict=True):
        expected = value.double().numpy()
        scale = max(float(np.abs(expected).max(initial=0)), 1e-12)
        worst = max(worst, float(np.abs(np.asarray(got[name], np.float64) - expected).max(initial=0)) / scale)
    if not worst <= _AGREEMENT:
        raise ProofError(
            f"the fine-tuned model differs from the trained network by {worst:.1e} of its largest output",
            where="the first training samples, in ONNX Runtime",
            fix="nothing was written; please report it with the graph",
        )
    return worst
