"""Every positional scheme there is, trained alike, three times each.

    ./launch.sh run experiments/configs/positions.py
    ./launch.sh run experiments/configs/positions.py --config.scale=tiny
    ./launch.sh run experiments/configs/positions.py --config.scale=large

Small decoders, alike but for how they know positions, read windows of 128 tokens and are evaluated in windows of up to
2048. Two schemes that know no position beyond the training length, sinusoidal and rotary, are there again with the
random positions of training that were proposed for that: shifted and randomized. Each is trained with three seeds; the
report's intervals run from the lowest to the highest.

small: under an hour on two CPU cores. tiny: a few minutes, one seed, and says nothing but that everything runs.
large: 34 million parameters, 210 million tokens of Python source a run, for one large GPU.
"""

import itertools

from experiments.configs import baseline
from experiments.scales import SCALES
from models.positions import PositionScheme

# One takes a function of the reader's own.
SCHEMES = tuple(name for name in PositionScheme.registry if name != "distance")
SEEDS = {"tiny": (0,), "small": (0, 1, 2), "large": (0, 1, 2)}


def get_config(scale="small"):
    config = baseline.get_config()
    SCALES[scale].apply(config)
    config.name = "positions" if scale == "small" else f"positions_{scale}"
    config.title = "Which positional scheme reaches beyond its training length?"
    config.description = (
        f"Decoders, alike but for their positional scheme, trained on windows of {config.train.length} tokens: how "
        f"well do they predict held-out text in windows of up to {max(config.evaluation.lengths)}?"
    )
    if scale == "small":
        # Some sixty runs: smaller and shorter than the baseline, and measured at every second length.
        config.model.layers = 3
        config.train.steps = 400
        config.evaluation.lengths = config.evaluation.lengths[::2]
    config.evaluation.scalings = ()
    return config


def get_sweep(scale="small"):
    size = SCALES[scale]
    fields = _fields(size.length)
    points = [(name, {"model.position.name": name, **fields.get(name, {})}) for name in SCHEMES]
    for scheme, (index, maximum) in itertools.product(("sinusoidal", "rope"), _random_positions(size).items()):
        changes = {"model.position.name": scheme, "model.position.index.name": index}
        points.append((f"{scheme}, {index}", changes | {"model.position.index.maximum": maximum}))
    # Every scheme once before any twice: a study that is stopped early has them all.
    return [{"label": label, "seed": seed, **changes} for seed in SEEDS[scale] for label, changes in points]


def _fields(length):
    """What schemes are told of the training length; all else is as published."""
    return {
        "t5": {"model.position.max_distance": length},
        "deberta": {"model.position.max_distance": length, "model.position.buckets": length // 4},
        # A quarter of the training length, as 512 is of the 2048 of the paper.
        "fire": {"model.position.threshold": length // 4},
        "cope": {"model.position.max_position": length // 2},
    }


def _random_positions(size):
    """The largest shift and the number of positions that make training see all that evaluation reaches."""
    return {"shifted": size.longest - size.length, "randomized": size.longest}
