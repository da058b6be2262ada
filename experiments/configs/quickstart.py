"""Six positional schemes on Shakespeare, trained at 128 tokens, evaluated at up to 2048.

    ./launch.sh run experiments/configs/quickstart.py

About fifteen minutes on two CPU cores. Expect sinusoidal and plain RoPE to lose quality beyond 128 tokens, ALiBi to
hold it, NTK-aware scaling to repair a part of RoPE's loss, and a learned table to be undefined.
"""

from experiments.config import StudyConfig
from train.configuration import to_config_dict

SCHEMES = ("none", "sinusoidal", "learned", "t5", "alibi", "rope")


def get_config():
    config = to_config_dict(StudyConfig())
    config.name = "quickstart"
    config.title = "Which positional scheme reaches beyond its training length?"
    config.description = (
        "Small decoders, alike but for their positional scheme, read Shakespeare in windows of 128 tokens. "
        "How well do they predict held-out plays in windows of up to 2048? The RoPE model is read again under four "
        "scalings, without retraining."
    )
    config.model.layers = 4
    config.model.width = 128
    config.model.heads = 4
    config.model.rematerialize = "dots"  # on CPU, computing activations again is faster than storing them
    config.tokenizer.vocabulary_size = 2048
    config.train.length = 128
    config.train.batch_size = 8
    config.train.steps = 1400  # one pass over the training plays
    config.train.evaluate_every = 200
    config.optimizer.learning_rate = 3e-3
    config.schedule.warmup = 50
    config.checkpoint.every = 200
    config.evaluation.lengths = (128, 256, 512, 1024, 2048)
    config.evaluation.scalings = ("linear", "ntk", "dynamic_ntk", "yarn")
    return config


def get_sweep():
    return [{"model.position.name": name} for name in SCHEMES]
