"""A gate for exported models: rules with stable names, what they find, and a baseline of scores and fingerprints."""
