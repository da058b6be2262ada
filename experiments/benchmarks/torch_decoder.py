"""The peer of the training step: the same decoder and optimizer in PyTorch, in its strongest settings on a CPU.

One matrix for query, key and value, fused attention, fused AdamW. Eager, or compiled by torch.compile.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from experiments.benchmarks.weights import load_layers

MATRICES = ("qkv", "merge", "up", "down")


class Decoder(torch.nn.Module):
    """Pre-RMSNorm, RoPE in half-split layout, GELU (tanh), no biases, tied embedding."""

    cosine: torch.Tensor
    sine: torch.Tensor

    def __init__(self, weights: str, heads: int, length: int, epsilon: float):
        super().__init__()
        outside, layers = load_layers(weights)
        self.heads, self.epsilon = heads, epsilon
        self.embedding = _parameter(outside["embedding"])
        self.final_scale = _parameter(outside["final_norm/scale"])
        self.layers: Any = torch.nn.ModuleList(_layer(arrays) for arrays in layers)
        size = self.embedding.shape[1] // heads
        angle = np.outer(np.arange(length), 10000.0 ** -(np.arange(0, size, 2) / size))
        self.register_buffer("cosine", torch.tensor(np.cos(angle), dtype=torch.float32))
        self.register_buffer("sine", torch.tensor(np.sin(angle), dtype=torch.float32))

    def forward(self, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The mean cross-entropy of targets [B, L] after tokens [B, L]."""
        x = self.embedding[tokens] * self.embedding.shape[1] ** 0.5
        for layer in self.layers:
            x = x + self._attention(layer, self._norm(x, layer["attention_scale"]))
            hidden = F.gelu(F.linear(self._norm(x, layer["feed_forward_scale"]), layer["up"]), approximate="tanh")
            x = x + F.linear(hidden, layer["down"])
        logits = F.linear(self._norm(x, self.final_scale), self.embedding)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def _norm(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, scale.shape, scale, self.epsilon)

    def _attention(self, layer: Any, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        qkv = F.linear(x, layer["qkv"]).view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        output = F.scaled_dot_product_attention(self._rotate(qkv[0]), self._rotate(qkv[1]), qkv[2], is_causal=True)
        return F.linear(output.transpose(1, 2).reshape(batch, length, width), layer["merge"])

    def _rotate(self, x: torch.Tensor) -> torch.Tensor:
        first, second = x.chunk(2, -1)
        turned = (first * self.cosine - second * self.sine, second * self.cosine + first * self.sine)
        return torch.cat(turned, -1)


def _parameter(array: np.ndarray) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.tensor(np.ascontiguousarray(array)))


def _layer(arrays: dict[str, np.ndarray]) -> torch.nn.ParameterDict:
    names = [f"attention/{name}/kernel" for name in ("query", "key", "value")]
    return torch.nn.ParameterDict(
        {
            "attention_scale": _parameter(arrays["attention_input_norm/scale"]),
            "qkv": _parameter(np.concatenate([arrays[name] for name in names], axis=1).T),
            "merge": _parameter(arrays["attention/output/kernel"].T),
            "feed_forward_scale": _parameter(arrays["feed_forward_input_norm/scale"]),
            "up": _parameter(arrays["feed_forward/up/kernel"].T),
            "down": _parameter(arrays["feed_forward/output/kernel"].T),
        }
    )


def contender(
    weights: str, batch: str, heads: int, epsilon: float, clip: float, decay: float, compiled: bool
) -> tuple[Callable[[int], None], dict[str, Any]]:
    """Training steps on the batch in a file, from the weights in a file. facts: parameters, and the first loss."""
    torch.set_num_threads(1)
    with np.load(batch) as arrays:
        tokens, targets = (torch.tensor(arrays[name], dtype=torch.long) for name in ("tokens", "targets"))
    model = Decoder(weights, heads, tokens.shape[1], epsilon)
    decayed = [p for name, p in model.named_parameters() if name.rsplit(".", 1)[-1] in MATRICES]
    others = [p for name, p in model.named_parameters() if name.rsplit(".", 1)[-1] not in MATRICES]
    groups = [{"params": decayed, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), fused=True)
    loss_of = torch.compile(model) if compiled else model

    def run(steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            loss_of(tokens, targets).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()

    with torch.no_grad():
        loss = float(model(tokens, targets))
    run(1)
    return run, {"parameters": sum(p.numel() for p in model.parameters()), "loss": loss}
