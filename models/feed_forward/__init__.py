"""The feed-forward sublayer: activations by name, and the dense layer over them."""

from models.feed_forward.activations import ACTIVATIONS, gated
from models.feed_forward.dense import FeedForward, FeedForwardKind, feed_forward, hidden_units

__all__ = ["ACTIVATIONS", "FeedForward", "FeedForwardKind", "feed_forward", "gated", "hidden_units"]
