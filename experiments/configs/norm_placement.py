"""Pre-norm against post-norm, at two depths and two learning rates.

    ./launch.sh run experiments/configs/norm_placement.py

Eight runs of 800 steps, 26 CPU-minutes. Expect pre-norm to train at every setting, and post-norm to fail where the
stack is deep and the learning rate high (Xiong et al. 2020): with eight layers at 4e-3 it learns how often each token
occurs, and nothing of their order. Where it trains, it need not be worse.
"""

import itertools

from experiments.configs import baseline

PLACEMENTS = ("pre", "post")
DEPTHS = (4, 8)
LEARNING_RATES = (1e-3, 4e-3)


def get_config():
    config = baseline.get_config()
    config.name = "norm_placement"
    config.title = "Pre-norm or post-norm?"
    config.description = (
        "The same decoder with norms before or after each sublayer, at two depths and two learning rates: "
        "which trains, and does it matter for reach?"
    )
    config.train.steps = 800
    config.evaluation.lengths = (128, 512)
    config.evaluation.scalings = ()
    return config


def get_sweep():
    return [
        {
            "label": f"{placement}, {layers} layers, {rate:g}",
            "model.norm.placement": placement,
            "model.layers": layers,
            "optimizer.learning_rate": rate,
        }
        for placement, layers, rate in itertools.product(PLACEMENTS, DEPTHS, LEARNING_RATES)
    ]
