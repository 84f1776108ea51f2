"""From a PyTorch module to a traced program and its ONNX graph."""
