"""Pictures of what positional schemes do, computed from the schemes' own code: biases, decay, rotary spectra."""
