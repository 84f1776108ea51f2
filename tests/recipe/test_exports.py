from compressor.recipe.exports import originals
from exporters import litert, mnn
from exporters.onnx import Options


def test_what_a_rounded_file_is_compared_with_is_float():
    rounding = {"quantize_for": "anywhere", "keep_float": ["head.*"]}
    chosen = originals([Options(precision="int8", rounding=rounding, stream=True)])
    assert chosen == [Options(stream=True)]


def test_one_original_for_each_format_and_form_those_of_onnx_runtime_first():
    exports = [litert.Options(form="step", precision="int8"), mnn.Options(), Options(), Options(name="b", stream=True)]
    assert originals(exports) == [Options(name="b", stream=True), litert.Options(form="step"), mnn.Options()]
