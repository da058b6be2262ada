"""Every norm placement there is, in shallow and deep stacks of thin layers, at a low and a high learning rate.

    ./launch.sh run experiments/configs/norm_placement.py
    ./launch.sh run experiments/configs/norm_placement.py --config.scale=tiny
    ./launch.sh run experiments/configs/norm_placement.py --config.scale=large

Beside the loss, the report shows the size of activations and gradients of every layer through training, and which runs
diverged. Expect post-norm (Xiong et al. 2020) to learn nothing but word frequencies where the stack is deep and the
learning rate high, with gradients that vanish below the last layer, and to be among the best where it is shallow; and
placements that scale down what a sublayer adds (rezero, scaled, layer_scale) ahead of pre-norm in the deep stack.

small: 4 and 64 layers, two seeds, about 90 minutes of one CPU core. tiny: a few minutes, one seed, and says nothing but
that everything runs. large: wider layers and more steps, for one large GPU.
"""

import itertools

from experiments.configs import baseline
from experiments.scales import SCALES
from models.placements import Placement

PLACEMENTS = tuple(Placement.registry)
SEEDS = {"tiny": (0,), "small": (0, 1), "large": (0, 1)}
# Layers and learning rate.
SETTINGS = {
    "tiny": ((4, 4e-3),),
    "small": tuple(itertools.product((4, 64), (1e-3, 4e-3))),
    "large": tuple(itertools.product((8, 64), (5e-4, 2e-3))),
}


def get_config(scale="small"):
    config = baseline.get_config()
    SCALES[scale].apply(config)
    config.name = "norm_placement" if scale == "small" else f"norm_placement_{scale}"
    config.title = "Which norm placement trains deep stacks, and does it matter for reach?"
    config.description = (
        "The same decoder of thin layers under every norm placement, shallow and deep, at a low and a high learning "
        "rate: which trains, how large do activations and gradients become, and does it matter beyond "
        f"{config.train.length} tokens?"
    )
    if scale == "small":
        config.model.width = 32
        config.model.heads = 2
        config.train.steps = 200
        config.evaluation.documents = 4
    if scale == "large":
        config.model.width = 256
        config.model.heads = 4
        config.model.rematerialize = "dots"
        config.train.steps = 2000
    config.train.watch_layers = True
    config.evaluation.lengths = (config.train.length, 4 * config.train.length)
    config.evaluation.scalings = ()
    return config


def get_sweep(scale="small"):
    # Every placement once before any twice: a study that is stopped early has them all.
    return [
        {
            "label": f"{placement}, {layers} layers, {rate:g}",
            "seed": seed,
            "model.norm.placement.name": placement,
            "model.layers": layers,
            "optimizer.learning_rate": rate,
        }
        for seed, (layers, rate), placement in itertools.product(SEEDS[scale], SETTINGS[scale], PLACEMENTS)
    ]
