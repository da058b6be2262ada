"""The feed-forward sublayer: activations by name, and the dense layer over them."""

from models.feed_forward.activations import ACTIVATIONS, gated
from models.feed_forward.dense import FeedForward, FeedForwardKind, hidden_units

__all__ = ["ACTIVATIONS", "FeedForward", "FeedForwardKind", "gated", "hidden_units"]
