"""The command line: parse, call the pipeline, show. Exit codes and flags are a contract (README)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import (
    BUDGETS,
    DEVICE,
    IMAGES,
    JSON,
    MODEL,
    NO_LATENCY,
    OUTPUT,
    SEED,
    SIZES,
    check_outputs,
    free_sizes,
    preprocessing,
)

if TYPE_CHECKING:
    from collections.abc import Generator

    from ..pipeline import Result
    from ..runtime.preprocess import Preprocessing

BUG = 1


class _Commands(click.Group):
    """`onnx-prune MODEL` is `onnx-prune prune MODEL`: the main job needs no word."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and not (args[0].startswith("-") and len(args) == 1):
            args = ["prune", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=True)
@click.version_option(package_name="onnx-prune", prog_name="onnx-prune")
def cli() -> None:
    """Make a trained ONNX model smaller and faster by removing whole channels.

    \b
    onnx-prune MODEL [options]        prune MODEL (see: onnx-prune prune --help)
    onnx-prune resnet.onnx --macs 50%
    """


@cli.command()
@MODEL
@OUTPUT
@BUDGETS
@click.option("--criterion", help="Which channels go. Default: obs with calibration data, else l2.")
@click.option("--allocation", help="How many go where. Default: sensitivity with data, else uniform.")
@click.option("--reconstruct", help="How what stays is refitted. Default: sequential with data, else none.")
@click.option("--calibration", help="Folder or zip of images, .npz, .npy, or module:function. No labels are needed.")
@click.option("--samples", type=int, default=1024, show_default=True, help="Calibration samples to use.")
@click.option("--moments", type=click.Path(path_type=Path), help="Use measured moments instead of data.")
@click.option("--save-moments", type=click.Path(path_type=Path), help="Keep the measured moments (.npz).")
@click.option("--evaluate", "evaluation", help="Labelled data: print top-1 before and after.")
@click.option("--max-drop", help="Write nothing if top-1 falls by more than this (1%): needs --evaluate.")
@IMAGES
@click.option("--align", type=int, default=1, show_default=True, help="Kept channel counts are multiples of this.")
@click.option("--inexact", is_flag=True, help="Let LayerNorm, GroupNorm and the like lose channels as well.")
@click.option("--exclude", help="Regular expression of group names that stay whole.")
@click.option("--plan", "plan_file", type=click.Path(path_type=Path), help="Write what was removed as plan.json.")
@SEED
@DEVICE
@SIZES
@NO_LATENCY
@JSON
def prune(model: Path, output: Path | None, as_json: bool, no_latency: bool, **options: Any) -> None:  # noqa: ANN401
    """Prune MODEL: remove channels until the budget holds, prove the result, write it.

    With --calibration (images like those the model was trained on, no labels) channels are chosen by what the next
    layers need, and the weights that stay are refitted. Without it channels are chosen by their weights and accuracy
    is not protected: expect to fine-tune.
    """
    from ..passes.budget import Budget
    from ..pipeline import prune as run
    from .scores import require_labels

    target = _target(model, output)
    check_outputs([model], target, options["plan_file"], options["save_moments"])
    allowed = _allowed_drop(options)
    budget = Budget(**{k: options[k] for k in ("macs", "params", "size", "latency", "channels") if options[k]})
    chosen = {k: options[k] for k in _DATA_DRIVEN if options[k] is not None}
    images = preprocessing(options)
    if options["evaluation"] is not None:
        require_labels(model, options["evaluation"], images)
    with _progress(as_json) as progress:
        result = run(
            model,
            budget=budget,
            progress=progress,
            sizes=free_sizes(options["sizes"]),
            align=options["align"],
            exclude=options["exclude"],
            inexact=options["inexact"],
            seed=options["seed"],
            device=options["device"],
            measure=not no_latency,
            preprocessing=images,
            **chosen,
        )
        accuracy = _accuracy(model, result, images, progress, options)
        if accuracy is not None and allowed is not None:
            _guard(model, *accuracy, allowed)
    warning = _BY_WEIGHTS if options["calibration"] is None and options["moments"] is None else None
    _finish(result, target, options["plan_file"], as_json, accuracy=accuracy, warning=warning)


_BY_WEIGHTS = (
    "no calibration data: channels were chosen by their weights alone, and accuracy is not protected\n"
    "  fix:   give --calibration IMAGES (no labels are needed), or fine-tune the result"
)
_DATA_DRIVEN = ("criterion", "allocation", "reconstruct", "calibration", "samples", "moments", "save_moments")


def _allowed_drop(options: Any) -> float | None:  # noqa: ANN401
    from ..passes.errors import UsageError
    from .scores import share

    if options["max_drop"] is None:
        return None
    if options["evaluation"] is None:
        raise UsageError("--max-drop needs labelled data", fix="give --evaluate")
    return share(options["max_drop"])


def _accuracy(
    model: Path,
    result: Result,
    images: Preprocessing | None,
    progress: Callable[[str], None],
    options: Any,  # noqa: ANN401
) -> tuple[float, float] | None:
    """Top-1 before and after, where labelled data are given."""
    from .scores import top1

    if options["evaluation"] is None:
        return None
    progress("evaluating")
    before, after = (top1(m, options["evaluation"], images, options["device"]) for m in (model, result.model))
    return before, after


def _guard(model: Path, before: float, after: float, allowed: float) -> None:
    from ..passes.errors import AccuracyError

    if before - after > allowed:
        raise AccuracyError(
            f"top-1 fell from {before:.2%} to {after:.2%}, by more than {allowed:.2%}",
            where=str(model),
            fix="nothing was written: keep more (--macs), give more --samples, or allow more",
            before=before,
            after=after,
        )


@cli.command()
@MODEL
@click.argument("data")
@click.option("--reference", type=click.Path(path_type=Path), help="Compare outputs with this model: no labels needed.")
@click.option("--samples", type=int, help="Use so many. Default: all.")
@IMAGES
@SEED
@DEVICE
@JSON
def evaluate(model: Path, data: str, reference: Path | None, as_json: bool, **options: Any) -> None:  # noqa: ANN401
    """Measure MODEL on DATA: top-1 and top-5, or how far its outputs are from --reference."""
    from .scores import score

    chosen = {k: options[k] for k in ("samples", "seed", "device")}
    with _progress(as_json) as progress:
        progress("evaluating")
        result = score(model, data, reference, preprocessing(options), **chosen)
    if as_json:
        _print_json(result)
    else:
        click.echo("  ".join(f"{k} {v:.4%}" if k.startswith("top") else f"{k} {v}" for k, v in result.items()))


@cli.command()
@MODEL
@click.argument("plan", type=click.Path(path_type=Path))
@OUTPUT
@SEED
@DEVICE
@NO_LATENCY
@JSON
def apply(
    model: Path, plan: Path, output: Path | None, seed: int, device: str, no_latency: bool, as_json: bool
) -> None:
    """Redo a plan.json on MODEL, or on another checkpoint of the same graph."""
    from ..pipeline import apply as run

    target = _target(model, output)
    check_outputs([model, plan], target)
    with _progress(as_json) as progress:
        result = run(model, plan, progress=progress, seed=seed, device=device, measure=not no_latency)
    _finish(result, target, None, as_json, warning=_NOT_REFITTED)


_NOT_REFITTED = (
    "a plan says what goes, not how the rest is refitted: accuracy is not protected\n"
    "  fix:   evaluate the result, and fine-tune it"
)


@cli.command()
@MODEL
@DEVICE
@SIZES
@JSON
@click.option("--members", is_flag=True, help="List every weight axis of every group.")
def inspect(model: Path, device: str, sizes: tuple[str, ...], as_json: bool, members: bool) -> None:
    """Show the channel groups of MODEL, what they cost, and why each pinned one is pinned."""
    from ..pipeline import inspect as run
    from .show import inspection_dict, print_inspection

    with _progress(as_json):
        analysis = run(model, device=device, sizes=free_sizes(sizes))  # type: ignore[arg-type]
    if as_json:
        _print_json(inspection_dict(analysis))
    else:
        print_inspection(analysis, members=members)


@cli.command()
@OUTPUT
@NO_LATENCY
@JSON
def demo(output: Path | None, no_latency: bool, as_json: bool) -> None:
    """Prune the small trained model that comes with the package, and print its accuracy before and after."""
    from .demo import run_demo

    target = output or Path("digits.pruned.onnx")
    check_outputs([], target)
    with _progress(as_json) as progress:
        result, accuracy = run_demo(progress, measure=not no_latency)
    _finish(result, target, None, as_json, accuracy=accuracy)


def _target(model: Path, output: Path | None) -> Path:
    return output or model.with_name(f"{model.stem}.pruned.onnx")


def _finish(
    result: Result,
    target: Path,
    plan_file: Path | None,
    as_json: bool,
    accuracy: tuple[float, float] | None = None,
    warning: str | None = None,
) -> None:
    from .show import print_result

    result.save(target)
    if plan_file is not None:
        result.plan.save(plan_file)
    if as_json:
        extra = {} if accuracy is None else {"accuracy": list(accuracy)}
        _print_json({**result.report.as_dict(), "output": str(target), "plan": str(plan_file or ""), **extra})
    else:
        print_result(result, target, plan_file, accuracy)
    if warning is not None:
        click.echo(f"onnx-prune: {warning}", err=True)


def _print_json(value: dict[str, Any]) -> None:
    import json

    click.echo(json.dumps(value, indent=2))


def _progress(quiet: bool) -> AbstractContextManager[Callable[[str], None]]:
    """A spinner with the stage on standard error, where that is a terminal."""
    if quiet or not sys.stderr.isatty():
        return nullcontext(lambda stage: None)
    return _spinner()


@contextmanager
def _spinner() -> Generator[Callable[[str], None]]:
    from rich.console import Console

    console = Console(stderr=True)
    with console.status("starting") as status:
        yield status.update


def main() -> None:
    """Run the command line and exit with the code that the error carries; 1 is a bug of ours."""
    from ..passes.errors import OnnxPruneError

    try:
        cli(prog_name="onnx-prune", standalone_mode=False)
    except OnnxPruneError as error:
        click.echo(f"onnx-prune: {error}", err=True)
        sys.exit(error.exit_code)
    except click.exceptions.Exit as end:
        sys.exit(end.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)
    except Exception as error:  # noqa: BLE001 - the last line of defence: a bug is said, not thrown at the user
        import os
        import traceback

        if os.environ.get("ONNX_PRUNE_DEBUG"):
            traceback.print_exc()
        click.echo(
            f"onnx-prune: a bug of ours: {type(error).__name__}: {error}\n"
            "  fix:   set ONNX_PRUNE_DEBUG=1 for the traceback and report it with the graph",
            err=True,
        )
        sys.exit(BUG)


if __name__ == "__main__":
    main()
