"""Changes to an ONNX graph after PyTorch has written it."""
