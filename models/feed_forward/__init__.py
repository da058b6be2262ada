"""The feed-forward sublayer: activations by name, and the dense layer over them."""

from models.feed_forward.activations import ACTIVATIONS, gated
from models.feed_forward.dense import FeedForward, hidden_units

__all__ = ["ACTIVATIONS", "FeedForward", "gated", "hidden_units"]
