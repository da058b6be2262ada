"""The search for LongRoPE's factors on a checkpoint (Ding et al. 2024, section 3)."""
