"""Studies: the pipeline at every point of a grid of settings, and what the points say together."""
