"""Six positional schemes on Shakespeare, trained at 128 tokens, evaluated at up to 2048.

    ./launch.sh run experiments/configs/quickstart.py

About 29 CPU-minutes on two cores. Expect sinusoidal and plain RoPE to lose quality beyond 128 tokens, ALiBi to
hold it, NTK-aware scaling to repair a part of RoPE's loss, and a learned table to be undefined.
"""

from experiments.configs import baseline

SCHEMES = ("none", "sinusoidal", "learned", "t5", "alibi", "rope")


def get_config():
    config = baseline.get_config()
    config.name = "quickstart"
    config.title = "Which positional scheme reaches beyond its training length?"
    config.description = (
        "Small decoders, alike but for their positional scheme, read Shakespeare in windows of 128 tokens. "
        "How well do they predict held-out plays in windows of up to 2048? The RoPE model is read again under four "
        "scalings, without retraining."
    )
    config.evaluation.scalings = ("linear", "ntk", "dynamic_ntk", "yarn")
    return config


def get_sweep():
    return [{"model.position.name": name} for name in SCHEMES]
