"""C99 from ONNX graphs whose sizes are all known."""
