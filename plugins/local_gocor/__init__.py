"""A whole local GOCor module: initial filters, every step of their optimisation, scores on the query."""
