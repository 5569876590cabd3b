"""The deployed part: runs a model on images. Needs NumPy at import and nothing of torch or onnx ever."""
