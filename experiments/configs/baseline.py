"""One run: the template for studies of your own. Copy it, change what your study changes, say what you expect.

    ./launch.sh run experiments/configs/baseline.py
    ./launch.sh run experiments/configs/baseline.py --config.model.position.name=alibi --config.train.steps=1000
    ./launch.sh run experiments/configs/baseline.py --config.data.corpus.name=files --config.data.corpus.path=my/texts

A few minutes on two CPU cores; expect about 2.2 bits per byte on held-out plays at 128 tokens.
"""

from experiments.config import StudyConfig
from train.configuration import to_config_dict


def get_config():
    # Every field there is, with its default; the dataclasses say what each means:
    # models/config.py, train/config.py, experiments/evaluation/config.py.
    config = to_config_dict(StudyConfig())

    # The folder (studies/baseline) and the head of the report.
    config.name = "baseline"
    config.title = "One decoder with rotary positions"
    config.description = "How does a small model with plain RoPE read beyond the 128 tokens it was trained at?"

    # The model. Choices are names; naming another one brings its own fields, here and on the command line:
    # config.model.position.name = "t5"; config.model.position.buckets = 64
    # --config.model.position.name=t5 --config.model.position.buckets=64
    config.model.layers = 4
    config.model.width = 128
    config.model.heads = 4
    config.model.rematerialize = "dots"  # on CPU, computing activations again is faster than storing them

    # The text, and the tokenizer that is trained on its training split.
    config.tokenizer.vocabulary_size = 2048

    # 8 rows of 128 tokens a step; 1400 steps are one pass over the training plays.
    config.train.length = 128
    config.train.batch_size = 8
    config.train.steps = 1400
    config.train.evaluate_every = 200
    config.optimizer.learning_rate = 3e-3
    config.schedule.warmup = 50
    config.checkpoint.every = 200

    # Held-out text, read in windows up to sixteen times the training length; the checkpoint again under scalings.
    config.evaluation.lengths = (128, 256, 512, 1024, 2048)
    config.evaluation.scalings = ("ntk", "yarn")
    return config


# A study of several runs has a get_sweep as well: one dictionary a run, with what it changes. For example:
#
# def get_sweep():
#     return [{"model.position.name": name} for name in ("rope", "alibi", "t5")]
