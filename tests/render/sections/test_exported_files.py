from compressor.render.sections.exported_files import facts, parity, rule
from compressor.report import Noise, OutputNoise, Part


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


def test_the_rule_of_agreement_and_the_origin_of_real_inputs_are_shown(report):
    artifact = report.original.artifact
    assert rule(artifact.parity) == "|file − PyTorch| ≤ 1e-05 + 0.0001 × |PyTorch|, everywhere"
    assert "inputs of" not in parity(artifact).header
    noise = Noise(precision="float32", multiple=8, outputs=(OutputNoise(largest=3e-5, rms=1e-6, scale=2.0),))
    points = (artifact.parity.points[0].model_copy(update={"origin": "evaluate"}),)
    noisy = artifact.model_copy(
        update={"parity": artifact.parity.model_copy(update={"noise": noise, "points": points})}
    )
    assert rule(noisy.parity).endswith("; or at most 8 × what PyTorch in float32 and in float64 differ by (3.0e-05)")
    assert parity(noisy).rows[0][-2] == "evaluate"
