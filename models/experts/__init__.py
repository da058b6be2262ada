"""Mixtures of experts: several feed-forward layers, of which each token uses some."""

from models.experts.dropless import Dropless
from models.experts.expert_choice import ExpertChoice
from models.experts.experts import Experts, Mixture, NoExperts
from models.experts.layer import ExpertLayer
from models.experts.routing import TokenRouted
from models.experts.soft import Soft
from models.experts.token_choice import TokenChoice

__all__ = [
    "Dropless",
    "ExpertChoice",
    "ExpertLayer",
    "Experts",
    "Mixture",
    "NoExperts",
    "Soft",
    "TokenChoice",
    "TokenRouted",
]
