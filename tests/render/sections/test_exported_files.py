from compressor.render.sections.exported_files import facts, parity, rule
from compressor.report import Emulated, Noise, OutputNoise, Part


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


def test_what_a_program_takes_on_a_microcontroller_is_marked_as_emulated(report):
    emulated = Emulated(
        cpu="cortex-m4", board="mps2-an386, QEMU 7.2", compiler="gcc 12 -O2", flash_bytes=6400, ram_bytes=564,
        stack_bytes=92, instructions=8141, calls=8, max_absolute=3e-8, atol=1e-5,
    )  # fmt: skip
    rows = dict(facts(report.original.artifact.model_copy(update={"emulated": emulated})).rows)
    assert rows["on cortex-m4, emulated"] == "mps2-an386, QEMU 7.2, gcc 12 -O2; sizes and numbers, no speed"
    assert rows["flash"].startswith("6,400 B")
    assert rows["RAM"] == "564 B, 92 B of it the deepest stack"
    assert rows["instructions of a call"] == "8,141, the most of 8 calls"


def test_a_file_without_lengths_is_told_by_its_batch_sizes_alone(report):
    artifact = report.original.artifact
    assert "length" in parity(artifact).header
    shapes = tuple(item.model_copy(update={"shape": ("batch", 3)}) for item in artifact.inputs)
    points = tuple(point.model_copy(update={"length": 7}) for point in artifact.parity.points)
    flat = artifact.model_copy(
        update={
            "inputs": shapes,
            "outputs": shapes,
            "parity": artifact.parity.model_copy(update={"points": points}),
        }
    )
    table = parity(flat)
    assert "length" not in table.header
    assert {len(row) for row in table.rows} == {len(table.header)}
