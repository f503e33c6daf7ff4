"""Soft filter pruning. He et al., Soft filter pruning for accelerating deep CNNs, IJCAI 2018, algorithm 1."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ....passes.channels.groups import ChannelGroups
from ....passes.selection.plans.plan import Plan
from ..graph_module import GraphModule


def softener(groups: ChannelGroups, plan: Plan, *, spare_last: bool = False) -> Callable[[GraphModule, int], None]:
    """What zeroes, when an epoch ends, the filters of least l2 norm of each group, as many as the plan removes.

    Biases and BatchNormalization stay, so that a zeroed filter still emits a constant and gets gradients. In the paper
    those that the last epoch leaves at zero are cut. spare_last: nothing is zeroed then, where least squares make up
    for what has regrown.
    """
    chosen = [(groups[name], len(units)) for name, units in plan.removed.items()]

    def soften(module: GraphModule, left: int) -> None:
        if spare_last and not left:
            return
        with torch.no_grad():
            for group, count in chosen:
                keys = [key for key in group.produced if key.constant in module.parameter_names]
                rows = [module.get_parameter(module.parameter_names[key.constant]).movedim(key.axis, 0) for key in keys]
                at = [torch.from_numpy(group.slices[key]) for key in keys]
                norms = sum(r.flatten(1).square().sum(1)[i].sum(1).sqrt() for r, i in zip(rows, at, strict=True))
                weakest = torch.as_tensor(norms).argsort(stable=True)[:count].cpu()
                for values, places in zip(rows, at, strict=True):
                    values[places[weakest].flatten()] = 0

    return soften
