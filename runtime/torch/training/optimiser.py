"""What a recipe is in torch: its optimiser, and the precision of its forward pass."""

from __future__ import annotations

import torch

from ..graph_module import GraphModule
from .recipe import Recipe


def make_optimiser(student: GraphModule, recipe: Recipe) -> torch.optim.Optimizer:
    """SGD with Nesterov's momentum, or AdamW. Weights decay, biases and scales (one number a channel) do not."""
    decaying = [p for p in student.parameters() if p.dim() > 1 and p.numel() > max(p.shape)]
    kept = {id(p) for p in decaying}
    others = [p for p in student.parameters() if id(p) not in kept]
    groups = ({"params": decaying, "weight_decay": recipe.decay}, {"params": others, "weight_decay": 0.0})
    filled = [group for group in groups if group["params"]]
    if recipe.optimiser == "adam":
        return torch.optim.AdamW(filled, lr=0.0, betas=(recipe.momentum, 0.999))
    return torch.optim.SGD(filled, lr=0.0, momentum=recipe.momentum, nesterov=recipe.momentum > 0)


def in_bfloat16(recipe: Recipe, device: torch.device) -> bool:
    """Whether the forward pass is in bfloat16: if it is asked for, or the hardware multiplies it."""
    if recipe.precision != "auto":
        return recipe.precision == "bfloat16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    abilities = torch.cpu.get_capabilities()
    return bool(abilities.get("avx512_bf16") or abilities.get("amx_bf16") or abilities.get("bf16"))
