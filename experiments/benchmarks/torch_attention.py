"""The peer of attention: PyTorch's fused kernel, forward and backward."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F


def contender(length: int, heads: int, head_size: int) -> tuple[Callable[[int], None], dict[str, Any]]:
    """Causal attention of one row, and its gradients."""
    torch.set_num_threads(1)
    q, k, v = (torch.randn(1, heads, length, head_size, requires_grad=True) for _ in range(3))
    cotangent = torch.randn(1, heads, length, head_size)

    def run(steps: int) -> None:
        for _ in range(steps):
            output = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            torch.autograd.grad(output, (q, k, v), cotangent)

    run(1)
    return run, {}
