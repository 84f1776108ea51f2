"""A report such as a real run writes: a GRU at half its units, then a third of the weights masked, retrained."""

import random

from compressor.report import (
    Artifact,
    Change,
    Drop,
    Environment,
    Interval,
    Latency,
    LayerCost,
    LayerSparsity,
    Limit,
    Measurement,
    Parity,
    ParityPoint,
    Report,
    Score,
    Skip,
    SpeedUp,
    StepReport,
    TensorInfo,
)

HIDDEN = {"original": 128, "compressed": 61}
INPUTS, CLASSES = 12, 9


def score(value, width=0.014):
    return Score(
        metric="accuracy",
        value=value,
        interval=Interval(low=value - width, high=min(1.0, value + width)),
        samples=370,
        parts={"speaker 1": min(1.0, value + 0.01), "speaker 2": value - 0.03},
    )


def layers(hidden, kept):
    shapes = {
        "encoder.weight_ih_l0": (3 * hidden, INPUTS),
        "encoder.weight_hh_l0": (3 * hidden, hidden),
        "encoder.bias_ih_l0": (3 * hidden,),
        "encoder.bias_hh_l0": (3 * hidden,),
        "classifier.weight": (CLASSES, hidden),
        "classifier.bias": (CLASSES,),
    }
    found = []
    for name, shape in shapes.items():
        size = shape[0] * (shape[1] if len(shape) == 2 else 1)
        part = kept if "encoder.weight" in name else 1.0
        found.append(LayerSparsity(name=name, shape=shape, parameters=size, nonzeros=round(size * part)))
    return tuple(found)


def latency(median, seed):
    draw = random.Random(seed)
    samples = sorted(
        median * (1 + abs(draw.gauss(0, 0.06)) + (draw.random() > 0.96) * draw.random()) for _ in range(200)
    )
    return Latency(
        p10=samples[20],
        p50=samples[100],
        p90=samples[180],
        runs=400,
        warmup=3,
        batch=1,
        length=29,
        threads=1,
        runtime="ONNX Runtime 1.22.0, CPU",
        samples=tuple(samples),
    )


def artifact(label):
    hidden = HIDDEN[label]
    size = 4 * sum(layer.parameters for layer in layers(hidden, 1.0)) + 1234
    points = ((1, 7, 8.9e-8), (2, 13, 1.2e-7), (5, 23, 1.8e-7), (1, 29, 1.5e-7), (3, 29, 2.4e-7))
    return Artifact(
        format="onnx",
        path=f"{label}.onnx",
        bytes=size,
        gzip_bytes=round(size * (0.92 if label == "original" else 0.69)),
        sha256="5ca97ebc6bbaaae30125082dcb6f9a2178263053cf6c768a88df0a980f82687f",
        opset=17,
        ir_version=8,
        inputs=(
            TensorInfo(name="features", dtype="float32", shape=("batch", "time", INPUTS)),
            TensorInfo(name="lengths", dtype="int64", shape=("batch",)),
        ),
        outputs=(TensorInfo(name="logits", dtype="float32", shape=("batch", CLASSES)),),
        operators={"GRU": 1, "Gemm": 1, "Transpose": 2, "Gather": 1, "Squeeze": 1},
        parity=Parity(
            atol=1e-5,
            rtol=1e-4,
            points=tuple(
                ParityPoint(batch=batch, length=length, max_absolute=error, max_relative=10 * error, within=True)
                for batch, length, error in points
            ),
        ),
        seconds=1.3,
    )


def costs(label, kept):
    """Of the layers of `layers`; the rest holds the graph and its activations."""
    hidden, seen = HIDDEN[label], {"encoder": 0, "classifier": 0}
    nonzeros = dict(seen)
    for layer in layers(hidden, kept):
        seen[layer.name.partition(".")[0]] += layer.parameters
        nonzeros[layer.name.partition(".")[0]] += layer.nonzeros
    macs = {"encoder": 29 * 3 * hidden * (INPUTS + hidden), "classifier": hidden * CLASSES}
    spent = {"encoder": 0.0021 * hidden, "classifier": 0.004}
    named = [
        LayerCost(
            name=name,
            parameters=number,
            nonzeros=nonzeros[name],
            bytes=4 * number,
            macs=macs[name],
            milliseconds=spent[name],
        )
        for name, number in seen.items()
    ]
    return (*named, LayerCost(name="", parameters=0, nonzeros=0, bytes=1234, macs=0, milliseconds=0.017))


def measurement(label, *, value, median, kept, drop=None):
    hidden = HIDDEN[label]
    found = layers(hidden, kept)
    return Measurement(
        label=label,
        artifact=artifact(label),
        parameters=sum(layer.parameters for layer in found),
        nonzeros=sum(layer.nonzeros for layer in found),
        macs=29 * 3 * hidden * (INPUTS + hidden) + hidden * CLASSES,
        peak_memory_bytes=11_800_576 if label == "original" else 11_251_712,
        latency=latency(median, seed=hidden),
        score=score(value),
        torch_score=score(value),
        layers=found,
        costs=costs(label, kept),
        drop=drop,
    )


def change(name, action, before, after, kept=1.0, note=""):
    old, new = before[0] * before[1], after[0] * after[1]
    return Change(
        name=name,
        action=action,
        shape_before=before,
        shape_after=after,
        parameters_before=old,
        parameters_after=new,
        nonzeros_before=old,
        nonzeros_after=round(new * kept),
        note=note,
    )


def steps():
    full, half = HIDDEN["original"], HIDDEN["compressed"]
    small = layers(half, 1.0)
    parameters = sum(layer.parameters for layer in small)
    nonzeros = sum(layer.nonzeros for layer in layers(half, 0.7))
    yield StepReport(
        index=0,
        method="magnitude",
        options={"method": "magnitude", "prune": "units", "ratio": 0.52, "round_to": 1, "targets": ["encoder"]},
        changes=(
            change("encoder.weight_ih_l0", "units removed", (3 * full, INPUTS), (3 * half, INPUTS)),
            change("encoder.weight_hh_l0", "units removed", (3 * full, full), (3 * half, half)),
            change("classifier.weight", "inputs removed", (CLASSES, full), (CLASSES, half), note="consumes encoder"),
        ),
        skipped=(Skip(name="norm", reason="LayerNorm has no units of its own; it follows its producer"),),
        seconds=0.31,
        parameters=parameters,
        nonzeros=parameters,
        score=score(0.71, 0.046),
    )
    yield StepReport(
        index=1,
        method="magnitude",
        options={"method": "magnitude", "prune": "weights", "matrices": "both", "ratio": 0.3, "scope": "global"},
        changes=(
            change("encoder.weight_ih_l0", "masked", (3 * half, INPUTS), (3 * half, INPUTS), kept=0.7),
            change("encoder.weight_hh_l0", "masked", (3 * half, half), (3 * half, half), kept=0.7),
        ),
        skipped=(Skip(name="classifier.weight", reason="not among the targets"),),
        seconds=0.04,
        parameters=parameters,
        nonzeros=nonzeros,
        score=score(0.66, 0.048),
    )
    yield StepReport(
        index=2,
        method="retrain",
        options={"method": "retrain", "epochs": 12, "learning_rate": 1e-3, "distill": True},
        changes=(change("encoder.weight_hh_l0", "trained", (3 * half, half), (3 * half, half)),),
        notes=("Stopped at epoch 12 of 12; the best epoch, 10, was kept.",),
        history=tuple(
            {"epoch": epoch, "loss": 0.9 * 0.72**epoch + 0.02, "metric": 0.974 - 0.26 * 0.6**epoch}
            for epoch in range(1, 13)
        ),
        seconds=74.2,
        parameters=parameters,
        nonzeros=nonzeros,
        score=score(0.973),
    )


def sample() -> Report:
    return Report(
        name="gru-half",
        description="Remove half of the hidden units, mask a third of the weights left, then retrain.",
        task="samples/japanese_vowels/task.py:JapaneseVowels",
        seed=0,
        command=("compressor", "run", "gru-half", "--task", "vowels/task.py", "--out", "runs/gru half"),
        recipe={
            "schema_version": 1,
            "name": "gru-half",
            "steps": [{"method": "magnitude", "prune": "units", "ratio": 0.52}, {"method": "retrain", "epochs": 12}],
            "exports": [{"format": "onnx", "opset": 17}],
        },
        recipe_sha256="9f2c" * 16,
        original=measurement("original", value=0.9784, median=0.41, kept=1.0),
        steps=tuple(steps()),
        compressed=(
            measurement(
                "compressed",
                value=0.973,
                median=0.152,
                kept=0.7,
                drop=Drop(value=0.0054, interval=Interval(low=-0.0054, high=0.0162)),
            ),
        ),
        speedups=(SpeedUp(ratio=2.69, interval=Interval(low=2.61, high=2.77), within_noise=False),),
        limits=(
            Limit(name="metric_drop", limit=0.01, reached=0.0054, met=True),
            Limit(name="file_ratio", limit=3.0, reached=3.9, met=True),
            Limit(name="speedup", limit=3.0, reached=2.69, met=False),
        ),
        notes=("The first step ran on the CPU, as there is no CUDA device.",),
        files=("report.json", "report.md", "report.html", "original.onnx", "compressed.onnx", "model.safetensors"),
        environment=Environment(
            created="2026-11-22T21:14:03Z",
            compressor="0.1.0",
            python="3.11.7",
            platform="Linux 6.18 x86_64",
            cpu="AMD EPYC 9B14",
            cores=2,
            device="cpu",
            versions={"torch": "2.14.1", "onnx": "1.23.2", "onnxruntime": "1.32.0", "numpy": "2.3.5"},
        ),
    )
