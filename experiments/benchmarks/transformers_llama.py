"""The peer of decoding: the same weights in transformers' Llama, with its fused attention and either of its caches."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from experiments.benchmarks.weights import load_layers

# Our name of a layer's array, and Llama's.
NAMES = {
    "attention_input_norm/scale": "input_layernorm",
    "attention/query/kernel": "self_attn.q_proj",
    "attention/key/kernel": "self_attn.k_proj",
    "attention/value/kernel": "self_attn.v_proj",
    "attention/output/kernel": "self_attn.o_proj",
    "feed_forward_input_norm/scale": "post_attention_layernorm",
    "feed_forward/gate/kernel": "mlp.gate_proj",
    "feed_forward/up/kernel": "mlp.up_proj",
    "feed_forward/output/kernel": "mlp.down_proj",
}


def llama(weights: str, heads: int, epsilon: float) -> Any:
    """Our parameters in a Llama. Its input embedding is ours times √width, which we multiply by; so it is not tied."""
    outside, layers = load_layers(weights)
    embedding = outside["embedding"]
    state = {
        "model.embed_tokens.weight": embedding * np.float32(embedding.shape[1] ** 0.5),
        "model.norm.weight": outside["final_norm/scale"],
        "lm_head.weight": embedding,
    }
    for i, arrays in enumerate(layers):
        for ours, theirs in NAMES.items():
            state[f"model.layers.{i}.{theirs}.weight"] = arrays[ours].T
    settings: dict[str, Any] = dict(
        vocab_size=embedding.shape[0],
        hidden_size=embedding.shape[1],
        intermediate_size=layers[0]["feed_forward/up/kernel"].shape[1],
        num_hidden_layers=len(layers),
        num_attention_heads=heads,
        rms_norm_eps=epsilon,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
        attn_implementation="sdpa",
    )
    config = LlamaConfig(**settings)
    model: Any = LlamaForCausalLM(config).eval()
    model.load_state_dict({name: torch.tensor(np.ascontiguousarray(array)) for name, array in state.items()})
    return model


def contender(
    weights: str, prompts: list[list[int]], heads: int, epsilon: float, count: int, cache: str
) -> tuple[Callable[[int], None], dict[str, Any]]:
    """Greedy continuations of the prompts. cache: "dynamic" or "static". facts: the tokens written."""
    torch.set_num_threads(1)
    model = llama(weights, heads, epsilon)
    tokens = torch.tensor(prompts)
    seen = torch.ones_like(tokens)

    @torch.inference_mode()
    def write() -> torch.Tensor:
        return model.generate(
            tokens,
            attention_mask=seen,
            do_sample=False,
            max_new_tokens=count,
            cache_implementation=cache,
        )[:, tokens.shape[1] :]

    def run(calls: int) -> None:
        for _ in range(calls):
            write()

    return run, {"tokens": write().tolist()}
