"""One dense feed-forward layer, or eight experts of which each token uses two, at equal active parameters.

    ./launch.sh run experiments/configs/experts.py
    ./launch.sh run experiments/configs/baseline.py --config.model.experts.name=dropless --config.model.experts.count=16

Three runs of 1400 steps: dense; token choice, which drops what exceeds an expert's capacity in training; and dropless.
Two experts of half the dense layer's hidden size cost a token what the dense layer does (and 1024 weights of a router
more); all eight hold four times its parameters. Expect the mixtures ahead of the dense model at the training length
(Shazeer et al. 2017; Fedus et al. 2022), dropless by at least as much as token choice (Gale et al. 2023), and the reach
of all three alike: who is routed where follows from the token, not from its position.

Beside the loss, metrics.jsonl has, by layer, each expert's load, the share of dropped choices, the router's entropy and
the losses that balance it.
"""

from experiments.configs import baseline

COUNT, TOP_K = 8, 2


def get_config():
    config = baseline.get_config()
    config.name = "experts"
    config.title = "Do experts reach further?"
    config.description = (
        f"A dense decoder against mixtures of {COUNT} experts, {TOP_K} to a token, with and without a capacity, "
        "at equal active parameters."
    )
    config.evaluation.scalings = ()
    return config


def get_sweep():
    width = 4 * baseline.get_config().model.width // TOP_K
    mixture = {"model.experts.count": COUNT, "model.experts.top_k": TOP_K, "model.experts.width": width}
    return [
        {"label": "dense"},
        {"label": "token choice", "model.experts.name": "token_choice", **mixture},
        {"label": "dropless", "model.experts.name": "dropless", **mixture},
    ]
