"""Which nodes of an ONNX file a phone's runtime or accelerator takes, and what makes it take more."""
