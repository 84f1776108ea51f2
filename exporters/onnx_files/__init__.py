"""ONNX files: their options, the graphs of both forms, fewer bits, and the facts about them."""
