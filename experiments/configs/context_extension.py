"""How far can a RoPE model be taken beyond its training length: as it is, after a short adaptation, without positions?

    ./launch.sh run experiments/configs/context_extension.py
    ./launch.sh run experiments/configs/context_extension.py --config.scale=tiny
    ./launch.sh run experiments/configs/context_extension.py --config.scale=large

One model is trained with rotary positions and evaluated under every scaling rule at up to sixteen times its length,
without training. Then it is trained on for 200 steps at four times its length, once under each rule and once, as a
control, under none. Last, its positions are dropped and it is trained on for 200 steps at its own length (DroPE,
Gelberg et al. 2025), and evaluated again under the temperature that DroPE raises with the length. All adaptations read
as many tokens a step as the training did.

An adapted model keeps the factor 4 at every length, but for rules that follow the length. LongRoPE has no search behind
it here: all frequencies are divided alike.

small: under half an hour on two CPU cores. tiny: a few minutes, and says nothing but that everything runs.
large: 34 million parameters, 210 million tokens of Python source, for one large GPU.
"""

from experiments.configs import baseline
from experiments.evaluation.extension import extended
from experiments.overrides import changed
from experiments.scales import SCALES
from models.positions.scaling import Scaling

RULES = tuple(name for name in Scaling.registry if name != "none")
EXTENSION = 4  # the length adapted at, in training lengths


def get_config(scale="small"):
    config = baseline.get_config()
    SCALES[scale].apply(config)
    config.name = "context_extension" if scale == "small" else f"context_extension_{scale}"
    config.title = "How far can a RoPE model be taken?"
    config.description = (
        "One model with rotary positions, read beyond its training length under every scaling rule: without training, "
        f"and after {SCALES[scale].adaptation_steps} steps at {EXTENSION} times the length. DroPE has its positions "
        "removed in the place of scaled."
    )
    config.evaluation.scalings = RULES
    return config


def get_sweep(scale="small"):
    size, trained = SCALES[scale], get_config(scale)
    # A third of the peak that the model was trained at, down to little.
    short = {
        "from": "rope",
        "train.steps": size.adaptation_steps,
        "optimizer.learning_rate": trained.optimizer.learning_rate / 3,
        "schedule.warmup": size.adaptation_steps // 10,
        "evaluation.scalings": (),
    }
    longer = short | {
        "train.length": EXTENSION * size.length,
        "train.batch_size": trained.train.batch_size // EXTENSION,
    }
    adapted = [
        {"label": f"{rule}, adapted", **longer, "model.position.scaling.name": rule, **_fields(rule, size.length)}
        for rule in RULES
    ]
    # Its temperature comes after training, and is of the length evaluated at.
    dropped = {"label": "drope", **short, "model.position.name": "none", "evaluation.scalings": ("drope",)}
    return [{"label": "rope"}, {"label": "none, adapted", **longer}, *adapted, dropped]


def _fields(rule, length):
    """What the rule needs to know at the length adapted at; `length` is the one that it starts from."""
    scaling = extended(rule, float(EXTENSION))
    changes = changed(type(scaling)(), scaling, "model.position.scaling.")
    if hasattr(scaling, "original_length"):
        changes["model.position.scaling.original_length"] = length
    return changes
