"""Widths that papers give in numbers: Li et al., Pruning filters for efficient ConvNets, ICLR 2017, section 4, table 1.

Convolutions on the main path are counted from 1, so that the first one of block b (from 0) of a network of basic blocks
is 2 b + 2. A layer of which a share p goes keeps floor((1 - p) n) filters, which gives the published reductions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..channels.blocks import residual_blocks
from ..channels.groups import ChannelGroups
from ..errors import UsageError
from .layers import all_convolutions, blocks_of_groups, streams

Shares = Callable[[ChannelGroups], Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Staged:
    """One ratio a stage, for the first convolution of each block.

    blocks: of each stage
    goes: the share that goes, of each stage
    skipped: numbers of convolutions that stay
    outputs: whether the channels of the blocks' sums go instead, chosen by the shortcut's filters
    """

    blocks: tuple[int, ...]
    goes: tuple[float, ...]
    skipped: tuple[int, ...] = ()
    outputs: bool = False

    @property
    def criterion(self) -> str:
        """How filters are chosen."""
        return "l1:residual=shortcut" if self.outputs else "l1"

    def shares(self, groups: ChannelGroups) -> Mapping[str, float]:
        """Group -> the share that stays. Raises UsageError where the network has other blocks."""
        blocks = residual_blocks(groups.labelled)
        sizes = [sum(b.shape == shape for b in blocks) for shape in dict.fromkeys(b.shape for b in blocks)]
        number = blocks_of_groups(groups)
        if tuple(sizes) != self.blocks or sorted(number.values()) != list(range(len(blocks))):
            raise _other(f"stages of {', '.join(map(str, self.blocks))} basic blocks", f"{sizes}")
        stage = [s for s, count in enumerate(self.blocks) for _ in range(count)]
        if self.outputs:
            return {name: 1 - gone for name, gone in zip(streams(groups), self.goes, strict=True) if gone}
        return {
            name: 1 - self.goes[stage[block]]
            for name, block in number.items()
            if self.goes[stage[block]] and 2 * block + 2 not in self.skipped
        }


@dataclass(frozen=True, slots=True)
class Layered:
    """A share for some convolutions of a chain.

    count: of its convolutions
    goes: number of a convolution -> the share that goes
    """

    count: int
    goes: Mapping[int, float]
    criterion: str = "l1"

    def shares(self, groups: ChannelGroups) -> Mapping[str, float]:
        """Group -> the share that stays. Raises UsageError where the network has other convolutions."""
        names = all_convolutions(groups)
        if len(names) != self.count or residual_blocks(groups.labelled):
            raise _other(f"a chain of {self.count} convolutions", f"{len(names)} convolutions that may be cut")
        return {names[number - 1]: 1 - gone for number, gone in self.goes.items()}


def _other(wanted: str, present: str) -> UsageError:
    return UsageError(
        f"this preset is for {wanted}, and the model has {present}",
        where="--preset",
        fix="take --preset li and a budget",
    )


_34 = (2, 8, 14, 16, 26, 28, 30, 32)
LI: Mapping[str, Staged | Layered] = {
    "resnet56-a": Staged((9, 9, 9), (0.1, 0.1, 0.1), (16, 20, 38, 54)),
    "resnet56-b": Staged((9, 9, 9), (0.6, 0.3, 0.1), (16, 18, 20, 34, 38, 54)),
    "resnet110-a": Staged((18, 18, 18), (0.5, 0.0, 0.0), (36,)),
    "resnet110-b": Staged((18, 18, 18), (0.5, 0.4, 0.3), (36, 38, 74)),
    "resnet34-a": Staged((3, 4, 6, 3), (0.3, 0.3, 0.3, 0.0), _34),
    "resnet34-b": Staged((3, 4, 6, 3), (0.5, 0.6, 0.4, 0.0), _34),
    "resnet34-c": Staged((3, 4, 6, 3), (0.0, 0.0, 0.2, 0.0), outputs=True),
    "vgg16-a": Layered(13, dict.fromkeys((1, *range(8, 14)), 0.5)),
}
