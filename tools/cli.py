"""The command line: parse, call the pipeline, show. Exit codes and flags are a contract (README)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Generator

    from ..pipeline import Result

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


def _options(*decorators: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def decorate(function: Any) -> Any:  # noqa: ANN401 - click's decorators are untyped
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


_model = click.argument("model", type=click.Path(path_type=Path))
_device = click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
_json = click.option(
    "--json", "as_json", is_flag=True, help="The result as JSON on standard output, nothing else there."
)
_seed = click.option("--seed", type=int, default=0, show_default=True, help="Of everything that is drawn at random.")
_size = click.option(
    "--size-of",
    "sizes",
    multiple=True,
    metavar="NAME=N",
    help="The value of a free dimension of the input, where none that is tried works.",
)
_output = click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Default: MODEL's name with .pruned.onnx."
)
_no_latency = click.option("--no-latency", is_flag=True, help="Do not measure latency before and after.")
_budgets = _options(
    click.option("--macs", help="Multiply-accumulates to keep: 50% (the default) or 2G."),
    click.option("--params", help="Parameters to keep: 50% or 10M."),
    click.option("--size", help="File size to reach: 50% or 20MB."),
    click.option("--channels", multiple=True, help="Channels to keep: 50%, or PATTERN=40% by group name, repeatable."),
)


@cli.command()
@_model
@_output
@_budgets
@click.option("--criterion", default=None, help="Which channels go. Default: l2 (no calibration data).")
@click.option("--allocation", default=None, help="How many go where: uniform (default), global.")
@click.option("--align", type=int, default=1, show_default=True, help="Kept channel counts are multiples of this.")
@click.option("--exclude", help="Regular expression of group names that stay whole.")
@click.option("--plan", "plan_file", type=click.Path(path_type=Path), help="Write what was removed as plan.json.")
@_seed
@_device
@_size
@_no_latency
@_json
def prune(model: Path, output: Path | None, as_json: bool, no_latency: bool, **options: Any) -> None:  # noqa: ANN401
    """Prune MODEL: remove channels until the budget holds, prove the result, write it.

    Without calibration data channels are chosen by their weights and accuracy is not protected: expect to fine-tune.
    """
    from ..passes.budget import Budget
    from ..passes.errors import UsageError
    from ..pipeline import prune as run

    target = output or model.with_name(f"{model.stem}.pruned.onnx")
    if target.resolve() == model.resolve():
        raise UsageError("the output is the input", where=str(model), fix="choose another name for -o")
    budget = Budget(**{k: options[k] for k in ("macs", "params", "size", "channels") if options[k]})
    chosen = {k: options[k] for k in ("criterion", "allocation") if options[k] is not None}
    with _progress(as_json) as progress:
        result = run(
            model,
            budget=budget,
            progress=progress,
            sizes=_sizes(options["sizes"]),
            align=options["align"],
            exclude=options["exclude"],
            seed=options["seed"],
            device=options["device"],
            measure=not no_latency,
            **chosen,
        )
    _finish(result, target, options["plan_file"], as_json)


@cli.command()
@_model
@click.argument("plan", type=click.Path(path_type=Path))
@_output
@_seed
@_device
@_no_latency
@_json
def apply(
    model: Path, plan: Path, output: Path | None, seed: int, device: str, no_latency: bool, as_json: bool
) -> None:
    """Redo a plan.json on MODEL, or on another checkpoint of the same graph."""
    from ..pipeline import apply as run

    with _progress(as_json) as progress:
        result = run(model, plan, progress=progress, seed=seed, device=device, measure=not no_latency)
    _finish(result, output or model.with_name(f"{model.stem}.pruned.onnx"), None, as_json)


@cli.command()
@_model
@_device
@_size
@_json
@click.option("--members", is_flag=True, help="List every weight axis of every group.")
def inspect(model: Path, device: str, sizes: tuple[str, ...], as_json: bool, members: bool) -> None:
    """Show the channel groups of MODEL, what they cost, and why each pinned one is pinned."""
    from ..pipeline import inspect as run
    from .show import inspection_dict, print_inspection

    with _progress(as_json):
        analysis = run(model, device=device, sizes=_sizes(sizes))  # type: ignore[arg-type]
    if as_json:
        _print_json(inspection_dict(analysis))
    else:
        print_inspection(analysis, members=members)


@cli.command()
@_output
@_no_latency
@_json
def demo(output: Path | None, no_latency: bool, as_json: bool) -> None:
    """Prune the small trained model that comes with the package, and print its accuracy before and after."""
    from .demo import run_demo

    with _progress(as_json) as progress:
        result, accuracy = run_demo(progress, measure=not no_latency)
    target = output or Path("digits.pruned.onnx")
    _finish(result, target, None, as_json, accuracy=accuracy)


def _finish(
    result: Result,
    target: Path,
    plan_file: Path | None,
    as_json: bool,
    accuracy: tuple[float, float] | None = None,
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


def _sizes(given: tuple[str, ...]) -> dict[str, int]:
    from ..passes.errors import UsageError

    sizes = {}
    for text in given:
        name, _, number = text.rpartition("=")
        if not name or not number.isdigit():
            raise UsageError("--size-of wants NAME=N", where=text, fix="for example --size-of height=320")
        sizes[name] = int(number)
    return sizes


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
        cli(standalone_mode=False)
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
