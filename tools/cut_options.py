"""How a cut is decided and measured: flags that every command that cuts has, and what is made of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from .options import (
    ALIGN,
    DEVICE,
    IMAGES,
    LATENCY_BATCH,
    NO_LATENCY,
    SEED,
    SIZES,
    THREADS,
    free_sizes,
    options,
    preprocessing,
)

STRATEGY = options(
    click.option(
        "--preset", help="The strategy of a paper (thinet, li, taylor, ccp, ...): sets the next three, what stays."
    ),
    click.option(
        "--effort",
        type=click.Choice(["quick", "normal", "thorough"]),
        default="normal",
        show_default=True,
        help="How much is computed with data: normal costs about a dozen forward passes of them.",
    ),
    click.option(
        "--criterion",
        help="Which channels go; options follow it: obs:swaps=20. Default: obs with data, else l2. l1, l2, fpgm, "
        "bn-scale and random look at weights alone: with one of them and no --calibration nothing is refitted.",
    ),
    click.option("--allocation", help="How many go where. Default: sensitivity with data, else uniform."),
    click.option("--episodes", type=click.IntRange(min=1), help="Networks that --allocation amc tries. Default: 400."),
    click.option("--reconstruct", help="How what stays is refitted. Default: sequential with data, else none."),
    click.option(
        "--calibration",
        help="Folder or zip of images, .npz, .npy, or module:function; no labels are needed. synthetic: drawn images, "
        "the default for models of images up to 1 G MACs, unless a criterion is named and all that is named looks at "
        "weights alone; none: the weights decide alone.",
    ),
    click.option(
        "--samples", type=click.IntRange(min=1), default=1024, show_default=True, help="Calibration samples to use."
    ),
    click.option("--moments", type=click.Path(path_type=Path), help="Use measured moments instead of data."),
    click.option("--save-moments", type=click.Path(path_type=Path), help="Keep the measured moments (.npz)."),
)
CUT = options(
    IMAGES,
    ALIGN,
    click.option(
        "--replace-head", type=click.Choice(["gap"]), help="Replace the last layers by pooling and one linear layer."
    ),
    click.option("--inexact", is_flag=True, help="Let LayerNorm, GroupNorm and the like lose channels as well."),
    click.option("--exclude", help="Regular expression of group names that stay whole."),
    click.option(
        "--keep-blocks", is_flag=True, help="Let no block or branch go entirely: every group keeps a channel."
    ),
    SEED,
    DEVICE,
    SIZES,
    NO_LATENCY,
    THREADS,
    LATENCY_BATCH,
)
_PLAIN = ("align", "exclude", "keep_blocks", "inexact", "replace_head", "seed", "device", "threads", "latency_batch")
_DATA_DRIVEN = (
    "effort",
    "preset",
    "criterion",
    "allocation",
    "reconstruct",
    "calibration",
    "samples",
    "moments",
    "save_moments",
)


def cut_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """What these flags say, as arguments of `prune`."""
    settings = {name: given[name] for name in _DATA_DRIVEN if given[name] is not None}
    settings |= {name: given[name] for name in _PLAIN} | {"preprocessing": preprocessing(given)}
    if given.get("episodes") is not None:
        settings["allocation"] = _episodes(settings, given["episodes"])
    return settings | {"sizes": free_sizes(given["sizes"]), "measure": not given["no_latency"]}


def _episodes(settings: Mapping[str, Any], count: int) -> str:
    """The allocation that is asked for, of so many episodes. Raises UsageError where it has none."""
    from ..passes.errors import UsageError
    from ..passes.selection.presets import make_preset

    preset = settings.get("preset")
    allocation = settings.get("allocation") or (make_preset(preset).allocation if preset else "")
    name, _, said = allocation.partition(":")
    if name != "amc":
        raise UsageError("only a search has episodes", where="--episodes", fix="give --allocation amc as well")
    return f"amc:{said},episodes={count}" if said else f"amc:episodes={count}"
