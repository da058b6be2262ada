"""What a network computes: configuration, positions, attention, blocks, decoding."""
