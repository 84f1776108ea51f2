from compressor.render.sections.exported_files import facts
from compressor.report import Part


def test_weights_of_a_file_and_the_runtime_that_it_needs_are_shown(report):
    artifact = report.original.artifact.model_copy(
        update={
            "parts": (Part(path="original.onnx.data", bytes=4096, sha256="ab" * 32, purpose="weights"),),
            "needs": "ONNX Runtime 1.14",
        }
    )
    rows = dict(facts(artifact).rows)
    assert rows["with original.onnx.data"] == "4,096 B: weights; included in the size"
    assert rows["needs"] == "ONNX Runtime 1.14 or newer"
