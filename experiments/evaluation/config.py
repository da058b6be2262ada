"""What an evaluation measures."""

from dataclasses import dataclass

from models.errors import require, require_choice
from models.positions.scaling import Scaling
from models.positions.temperature import DroPETemperature


@dataclass(frozen=True)
class EvaluationConfig:
    """lengths: window lengths, in tokens. stride_share: tokens a sliding window moves on by, as a share of its length.
    context_bytes: windows are also measured that hold about so many bytes of text, however many tokens these are for a
      tokenizer: the equal footing of vocabularies.
    scalings: RoPE checkpoints are evaluated again under each of these, at factor = length / training length; those
      without positions under "drope", the temperature of that name, at that factor.
    attribution: lengths at which ablations tell what breaks there, and up to which the entropy of attention is
      measured, each of the runs whose training length it is beyond.
    documents, tokens_per_document: how much held-out text is scored; 0 tokens is each document whole. At least the
      longest length of lengths and attribution: shorter documents hold no such window.
    final_tokens: how many tokens are scored with more and more context before them (at least that many).
    resamples: bootstrap samples of documents behind an interval. batch_tokens: tokens computed at a time.
    """

    lengths: tuple[int, ...] = (128, 256, 512, 1024, 2048)
    stride_share: float = 0.25
    context_bytes: tuple[int, ...] = ()
    scalings: tuple[str, ...] = ()
    attribution: tuple[int, ...] = ()
    documents: int = 8
    tokens_per_document: int = 4096
    final_tokens: int = 64
    resamples: int = 1000
    batch_tokens: int = 8192

    def __post_init__(self):
        require(
            len(self.lengths) > 0 and all(isinstance(length, int) and length >= 1 for length in self.lengths),
            "lengths",
            self.lengths,
            "one or more lengths of at least 1 token",
        )
        require(
            all(isinstance(count, int) and count >= 1 for count in self.context_bytes),
            "context_bytes",
            self.context_bytes,
            "numbers of bytes of at least 1",
        )
        require(
            all(isinstance(length, int) and length >= 1 for length in self.attribution),
            "attribution",
            self.attribution,
            "lengths of at least 1 token",
        )
        require(0 < self.stride_share <= 1, "stride_share", self.stride_share, "above 0 and at most 1")
        for scaling in self.scalings:
            require_choice("scalings", scaling, (*Scaling.registry, DroPETemperature.name))
        for name in ("documents", "final_tokens", "resamples", "batch_tokens"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        longest = max(self.lengths + self.attribution)
        allowed = f"at least {longest}, the longest of lengths and attribution, or 0 (documents whole)"
        enough = self.tokens_per_document == 0 or self.tokens_per_document >= longest
        require(enough, "tokens_per_document", self.tokens_per_document, allowed)

    def stride(self, length: int) -> int:
        """Tokens that sliding windows of `length` move on by."""
        return max(1, round(length * self.stride_share))
