"""A network of a user's own as the space: what can be changed in it, and the networks that come of it."""
