"""What turns text into weights: corpora, tokenizers, batches, optimizers, the step, the loop, checkpoints."""
