"""From a model in float32 to one with 8-bit convolutions: what to quantise, ranges, the graph, its drift."""
