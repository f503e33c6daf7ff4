"""Fine-tuning on the command line: its flags, the command, and what it says on the way."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..runtime.progress import is_first
from .checks import check_folder, check_outputs
from .endings import print_json, target_of
from .options import DEVICE, IMAGES, JSON, SEED, options, preprocessing
from .progress import Progress, progress_shown
from .recipe_options import NAMES, RECIPE, make_recipe
from .settings.sections import SectionedCommand

if TYPE_CHECKING:
    import onnx

    from ..passes.selection.budget import Budget
    from ..pipeline.write import Result
    from ..runtime.data.preprocess import Preprocessing
    from ..runtime.device import Device
    from ..runtime.torch.training.run import Epoch, FineTuned, Keeping, Watch

_RESUME = click.option("--resume", is_flag=True, help="Continue a run of the same output that was stopped or killed.")
IN_TURNS = options(
    click.option("--finetune", "train", help="Training data: fine-tune the result, taught by MODEL; labels help."),
    RECIPE,
    click.option(
        "--schedule",
        type=click.Choice(["once", "steps", "layers", "trim", "soft"]),
        help="Cuts and trainings: one cut; --steps of them; layer by layer; trimming; zeroing softly while training.",
    ),
    click.option("--steps", type=int, help="How many cuts, each followed by a training of --epochs or --updates."),
    _RESUME,
)


@click.command(cls=SectionedCommand)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--teacher", type=click.Path(path_type=Path), help="The model before pruning: its outputs are learned.")
@click.option("--train", required=True, help="Folder or zip of images, .npz, .npy, or module:function; labels help.")
@click.option("--evaluate", "evaluation", help="Data to measure on after each epoch: the best epoch is kept.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Default: MODEL's name with .tuned.onnx.")
@RECIPE
@_RESUME
@IMAGES
@SEED
@DEVICE
@JSON
def finetune(model: Path, teacher: Path | None, output: Path | None, as_json: bool, **options: Any) -> None:  # noqa: ANN401
    """Train the weights of MODEL further, such as a pruned one with the original as --teacher.

    The same graph comes back with other values. A run that is stopped or killed is continued with --resume; its state
    is in OUTPUT.finetune until it is done. Several GPUs or processes: torchrun -m onnx_prune.tools.cli finetune ...
    """
    from ..passes.graph.model import load
    from ..pipeline.training.finetune import finetune as run

    target = target_of(model, output, "tuned")
    read = [model, teacher, options["train"], options["evaluation"]]
    check_outputs(read, target)
    check_folder(read, _state_of(target))
    student = load(model)
    images = preprocessing(options)
    with watched(target) as watch:
        tuned = run(
            student,
            options["train"],
            teacher=teacher,
            evaluation=options["evaluation"],
            recipe=make_recipe(options),
            preprocessing=images,
            folder=_state_of(target),
            resume=options["resume"],
            device=options["device"],
            progress=watch.stage,
            watch=watch.epoch,
        )
    if not tuned.first:
        return
    accuracy = _top1(student.source, tuned, options["evaluation"], images, options["device"])
    save(tuned, target, external=student.external)
    shown = {**tuned.as_dict(), "accuracy": accuracy, "output": str(target)}
    print_json(shown) if as_json else _print(tuned, accuracy, target)


_BUDGETS = ("macs", "params", "size", "latency", "channels")


def check_in_turns(options: dict[str, Any], read: list[Path | str | None], target: Path) -> None:
    """Raise UsageError where the flags of a training do not go together, or its state would lie among what is read."""
    from ..passes.errors import UsageError

    if options["train"] is None:
        for name in (*NAMES, "schedule", "steps", "resume"):
            if options[name]:
                flag = name.removesuffix("_file").replace("_", "-")
                raise UsageError(
                    f"--{flag} is for fine-tuning", where="the main command", fix="give --finetune DATA as well"
                )
        return
    check_folder(read, _state_of(target))
    if options["max_drop"] is not None and not any(map(options.get, _BUDGETS)):
        raise UsageError(
            "with --finetune, --max-drop judges the model of a budget, and none is given",
            where="--max-drop",
            fix="give one such as --macs 50%, or find the smallest model first and train it with onnx-prune finetune",
        )


def run_in_turns(
    model: Path, target: Path, budget: Budget | None, options: dict[str, Any], settings: dict[str, Any]
) -> Result:
    """Prune and fine-tune as the flags say. The state is kept until `forget_run`."""
    from ..pipeline.training.in_turns import prune_and_finetune
    from ..pipeline.training.rounds import Schedule
    from ..runtime.torch.training.run import Examples

    steps = options["steps"] or 1
    kind = options["schedule"] or ("steps" if steps > 1 else None)
    schedule = None if kind is None else Schedule(kind, steps)
    lessons = Examples(options["train"], _judging(options), preprocessing(options))
    with watched(target) as watch:
        return prune_and_finetune(
            model,
            lessons,
            make_recipe(options),
            schedule=schedule,
            budget=budget,
            keeping=keeping(target, resume=options["resume"]),
            watch=watch,
            **settings,
        ).result


def _judging(options: dict[str, Any]) -> str | None:
    """Data that choose the best epoch: not where they are masks or boxes, which training does not read."""
    from ..runtime.measure.metric import of_pictures

    return None if of_pictures(options["metric"]) else options["evaluation"]


def forget_run(target: Path) -> None:
    """Remove the state of a run whose result is written."""
    from ..pipeline.training.in_turns import forget

    if not is_first():
        return
    forget(_state_of(target))


def keeping(target: Path, *, resume: bool) -> Keeping:
    """Where a run that makes `target` keeps its state."""
    from ..runtime.torch.training.run import Keeping

    return Keeping(_state_of(target), resume=resume)


def _state_of(target: Path) -> Path:
    return target.with_name(f"{target.name}.finetune")


def save(tuned: FineTuned, target: Path, *, external: bool) -> None:
    """Write the model, then forget the state of the run."""
    from ..passes.graph.files import save_model
    from ..runtime.torch.training.checkpoint import Checkpoint

    save_model(tuned.model, target, external=external)
    Checkpoint(_state_of(target), "").remove()


@contextmanager
def watched(target: Path) -> Generator[Watch]:
    """Progress on standard error: a line that changes, on a terminal, and one an epoch; what to do after a stop."""
    from ..runtime.torch.training.run import Watch

    with progress_shown() as progress:
        try:
            yield Watch(progress, lambda row: _tell(row, progress))
        except KeyboardInterrupt:
            if _state_of(target).is_dir():
                click.echo(f"onnx-prune: stopped; --resume goes on from {target}.finetune", err=True)
            raise


def _tell(row: Epoch, progress: Progress) -> None:
    parts = [
        f"epoch {row.number}" if row.number else "before",
        f"loss {row.loss:.4f}" if row.loss is not None else None,
        f"training {row.right:.2%}" if row.right is not None else None,
        f"evaluation {row.score:.2%}" if row.score is not None and row.score >= 0 else None,
        f"{row.seconds:.0f} s" if row.number else None,
    ]
    if len([part for part in parts if part]) > 1:
        progress.say("  ".join(part for part in parts if part))


def _top1(
    before: onnx.ModelProto,
    tuned: FineTuned,
    evaluation: str | None,
    images: Preprocessing | None,
    device: Device,
) -> list[float] | None:
    """Top-1 of the two files in ONNX Runtime, where there are labels."""
    from .scores import has_labels, top1_of

    if evaluation is None or not has_labels(before, evaluation, images):
        return None
    return list(top1_of((before, tuned.model), evaluation, images, device))


def _print(tuned: FineTuned, accuracy: list[float] | None, target: Path) -> None:
    if accuracy is not None:
        click.echo(f"top-1 {accuracy[0]:.2%} before, {accuracy[1]:.2%} after {len(tuned.epochs) - 1} epochs")
    click.echo(
        f"weights of epoch {tuned.best}; ONNX Runtime and the trained network differ by {tuned.agreement:.1e}; "
        f"{tuned.seconds:.0f} s"
    )
    click.echo(f"wrote {target}")
