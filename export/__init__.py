"""From a checkpoint to a verified ONNX model. Needs the extra ``export`` (torch, onnx)."""
