"""The last pass over a float graph: it is checked, and gets the precision that was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

    from exporters.onnx_files.options import Options


def finish(proto: onnx.ModelProto, options: Options) -> None:
    """Check a graph, and give it the precision that was asked for."""
    from exporters.passes import half, validity

    validity.check(proto, options.opset)
    if options.precision == "float16":
        half.convert(proto, float_io=options.float_io)
        validity.check(proto, options.opset)
