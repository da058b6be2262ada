"""Byte-level BPE vocabularies from 512 to 8192, compared in bits per byte.

    ./launch.sh run experiments/configs/vocab_size.py

Five runs of 1000 steps. A larger vocabulary puts more bytes into a token, so equal tokens are not equal context: the
report also compares windows of equal bytes. All score the same whole plays, but in training the larger ones have read
more text in as many tokens, and have more parameters.
"""

from experiments.configs import baseline

VOCABULARIES = (512, 1024, 2048, 4096, 8192)


def get_config():
    config = baseline.get_config()
    config.name = "vocab_size"
    config.title = "How large a vocabulary?"
    config.description = (
        "The same decoder under byte-level BPE vocabularies of different sizes, compared in bits per byte, "
        "in windows of equal tokens and in windows of equal bytes."
    )
    config.train.steps = 1000
    config.evaluation.lengths = (128, 256, 512)
    # What 128 tokens of the smallest vocabulary hold, about: every model reads this much within its training length.
    config.evaluation.context_bytes = (128, 240)
    config.evaluation.scalings = ()
    # Whole plays: a limit in tokens would be another text for each vocabulary.
    config.evaluation.documents = 4
    config.evaluation.tokens_per_document = 0
    return config


def get_sweep():
    return [{"label": f"vocabulary {size}", "tokenizer.vocabulary_size": size} for size in VOCABULARIES]
