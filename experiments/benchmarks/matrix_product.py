"""The product of two square float32 matrices in JAX: what a core's peak is measured by."""

from collections.abc import Callable
from typing import Any

import jax


def contender(rows: int) -> tuple[Callable[[int], None], dict[str, Any]]:
    """A step is one product of two [rows, rows] matrices."""
    left, right = jax.random.normal(jax.random.key(0), (2, rows, rows))
    product = jax.jit(jax.numpy.matmul)

    def run(steps: int) -> None:
        for _ in range(steps):
            jax.block_until_ready(product(left, right))

    run(1)
    return run, {}
