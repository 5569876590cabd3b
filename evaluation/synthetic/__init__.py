"""Synthetic pairs with exact dense flow, generated on the CPU or a GPU, for training and evaluation.

``generator.generate`` gives batches of tensors, ``generator.sample`` one pair in NumPy.
"""
