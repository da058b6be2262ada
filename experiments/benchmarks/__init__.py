"""Speed against peers: ratios measured side by side, interleaved, each contender pinned to one core and one thread."""
