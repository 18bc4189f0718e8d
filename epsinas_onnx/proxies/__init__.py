"""Other training-free scores of the same file: counts, activation patterns, spectra and gradients by the input."""
