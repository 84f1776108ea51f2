"""The facts of a run, frozen, to and from JSON. No rendering and no measuring here.

Units: sizes in bytes, latencies in milliseconds, MACs as a count (FLOPs = 2 x MACs), sparsity and ratio in 0..1.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from compressor.errors import ReportError

SCHEMA_VERSION = 1


class Fact(BaseModel):
    """A frozen record; unknown keys are refused when a report is read back."""

    # built on first use: `validate` imports this module for its names only
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Interval(Fact):
    """A two-sided confidence interval."""

    low: float
    high: float
    confidence: float = 0.95


class Score(Fact):
    """The task's metric on one model or file."""

    metric: str
    value: float
    higher_is_better: bool = True
    interval: Interval | None = None
    """Percentile bootstrap over samples; none where the task gives no per-sample scores."""
    samples: int | None = None
    parts: dict[str, float] = {}
    """Breakdown of the metric, such as accuracy per family."""


class Drop(Fact):
    """How much worse than the original's file a compressed file scores on the same samples; negative = better."""

    value: float
    """Absolute, in the metric's own unit, signed so that positive is worse whichever way the metric points."""
    interval: Interval | None = None
    """Paired bootstrap over samples, tighter than the two scores' own intervals; none without per-sample scores."""


class Change(Fact):
    """What a step did to one parameter or module."""

    name: str
    action: str
    """One or two words: `masked`, `units removed`, `inputs removed`, `trained`."""
    shape_before: tuple[int, ...] = ()
    shape_after: tuple[int, ...] = ()
    parameters_before: int = 0
    parameters_after: int = 0
    nonzeros_before: int = 0
    nonzeros_after: int = 0
    note: str = ""


class Skip(Fact):
    """What a step looked at and left alone, and why."""

    name: str
    reason: str


class LayerSparsity(Fact):
    """Zeros of one parameter after the last step."""

    name: str
    shape: tuple[int, ...]
    parameters: int
    nonzeros: int

    @property
    def sparsity(self) -> float:
        """Fraction of zeros, 0..1."""
        return 1.0 - self.nonzeros / self.parameters if self.parameters else 0.0


class Beside(Fact):
    """Another way to do what a step did, to the same amount, with the rest of the recipe carried out on it."""

    name: str
    parameters: int = 0
    nonzeros: int = 0
    score: Score | None = None
    """The metric of the PyTorch model right after the step."""
    final: Score | None = None
    """The metric after the last step of the recipe."""
    note: str = ""
    """Why there is no score."""


Verdict = Literal["kept", "lost", "gained", "undecided", "neither"]
"""Of a probe: an ability is kept, lost or gained; within noise; or neither side has it, which says nothing."""


class ProbeScore(Fact):
    """The accuracy of one architecture on a synthetic task."""

    accuracies: tuple[float, ...]
    """One a seed."""
    mean: float
    interval: Interval | None = None
    """Student's, over seeds; none of one seed."""


class ProbeLength(Fact):
    """Two architectures on a synthetic task at one length."""

    length: int
    chance: float
    """Accuracy of the best guess without the ability."""
    original: ProbeScore
    converted: ProbeScore
    drop: Drop
    """Accuracy of the original minus that of the converted one, Welch's interval over seeds."""
    verdict: Verdict


class ProbeResult(Fact):
    """Two architectures, trained alike on a synthetic task."""

    task: str
    difficulty: str
    needs: str
    """The ability, after "to"."""
    meaning: str
    """Which data need it: those that suffer where it is lost."""
    patience: int = 1
    """So many times the steps of `effort` were given to it."""
    trained: ProbeLength
    longer: ProbeLength
    """A length that training has not seen."""
    steps_original: tuple[int, ...]
    """Optimizer steps until it was solved or given up, one a seed."""
    steps_converted: tuple[int, ...]
    parameters_original: int
    """Of the layers that are compared, as they were built for the probe."""
    parameters_converted: int


class Probe(Fact):
    """What an architecture that takes the place of another can still learn."""

    modules: tuple[str, ...] = ()
    """The layers of the user's model that are converted."""
    original: str
    """The architecture, such as `causal attention`."""
    converted: str
    original_size: str
    """How much of it was built for the probe: `2 layers, 4 heads`."""
    converted_size: str
    results: tuple[ProbeResult, ...]
    seeds: int
    first_seed: int = 0
    effort: dict[str, Any]
    """How the networks were trained."""
    margin: float
    """A difference in accuracy below this does not count."""
    learned: float
    """A side has learned something where its accuracy is at least this part of the way from chance to 1."""
    seconds: float = 0.0


class ProbeFile(Fact):
    """What `compressor probe` writes."""

    schema_version: Literal[1] = 1
    version: str
    """Of the tool that measured."""
    measured_at: str
    """Date and time in UTC, ISO 8601."""
    probes: tuple[Probe, ...]


class StepReport(Fact):
    """One step of the recipe as it was carried out."""

    index: int
    method: str
    options: dict[str, Any]
    changes: tuple[Change, ...]
    skipped: tuple[Skip, ...] = ()
    notes: tuple[str, ...] = ()
    history: tuple[dict[str, float], ...] = ()
    """One row per epoch or round, for instance {"epoch": 1, "loss": 0.3, "metric": 0.97}."""
    facts: dict[str, float] = {}
    """Numbers about what the step made, such as the properties of a graph."""
    seconds: float = 0.0
    parameters: int = 0
    nonzeros: int = 0
    score: Score | None = None
    """The metric of the PyTorch model right after this step."""
    beside: tuple[Beside, ...] = ()
    """Controls."""
    probes: tuple[Probe, ...] = ()
    """Of what the step puts in the place of another architecture."""
    unprobed: tuple[Skip, ...] = ()
    """Layers in whose place the step put another architecture that was not probed, and why."""


class ParityPoint(Fact):
    """Agreement of the file with PyTorch at one batch size and length, over all outputs."""

    batch: int
    length: int
    max_absolute: float
    max_relative: float
    """Largest |file - torch| / (|torch| + atol)."""
    within: bool
    note: str = ""
    """What is wrong beside the numbers, such as another shape; both errors are then infinite."""


class Parity(Fact):
    """Agreement of an exported file with PyTorch: |file - torch| <= atol + rtol * |torch| everywhere."""

    atol: float
    rtol: float
    points: tuple[ParityPoint, ...]

    @property
    def passed(self) -> bool:
        """True where every point is within the tolerances."""
        return all(point.within for point in self.points)


class TensorInfo(Fact):
    """An input or output of a file; a dynamic axis is given by its name."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


class QuantizedMatrix(Fact):
    """One weight of a file in 8 or 4 bits; of a file for NPUs also all nodes of an operator that has no weight."""

    name: str
    operators: tuple[str, ...]
    """Types of the operators that use it."""
    shape: tuple[int, ...]
    form: Literal["float", "half", "weights", "integer", "int4", "static"]
    """`half`: float16, float32 again in front of the operator. `weights`: the same with 8 bits. `integer`: 8 bits,
    multiplied as integers. `int4`: 4 bits. `static`: 8 bits, and the operator in integers of calibrated scales."""
    bytes_before: int
    bytes_after: int
    """Scales included."""
    errors: dict[str, float] = {}
    """Form -> relative error of the outputs on calibration data with this matrix alone in that form."""
    metric_drop: float | None = None
    """Loss of the metric with this matrix alone in its first form; measured where the metric decides."""
    note: str = ""
    """Why it is float, or in another form than asked."""


class QuantizationPoint(Fact):
    """A quantized file beside PyTorch at one batch size and length."""

    batch: int
    length: int
    error: float
    """Largest relative error of an output: norm of the difference / norm of the output."""
    within: bool


class Quantization(Fact):
    """What was rounded in a file, and what that costs."""

    precision: Literal["int8", "int4"]
    target: str
    matrices: tuple[QuantizedMatrix, ...]
    samples: int
    """Sequences of calibration data."""
    calibration: str | None = None
    """How the ranges of activations were found on them; none where activations are not rounded by fixed scales."""
    activations: str | None = None
    """What they are stored in there."""
    error: float
    """Relative error of the outputs on them."""
    max_error: float
    structure: Parity
    """The file with its activations left in float beside the float file with the same rounded weights."""
    deviation: tuple[QuantizationPoint, ...]
    """The file itself beside PyTorch."""
    function: Literal["validate", "evaluate"] | None = None
    """What measured the metric; none where output errors alone decided."""
    metric_drop: float | None = None
    """Loss of the metric by the rounding."""
    metric_drop_allowed: float | None = None


class SensitivityPoint(Fact):
    """The model with one layer pruned at one ratio and nothing retrained."""

    ratio: float
    units_removed: int
    parameters: int
    """Of the whole model, afterwards."""
    score: Score
    drop: Drop


class LayerSensitivity(Fact):
    """What a layer costs at several ratios; layers whose units are tied can only go together and are one entry."""

    modules: tuple[str, ...]
    sizes: tuple[int, ...] = ()
    """Units of each layer and direction of these modules."""
    points: tuple[SensitivityPoint, ...] = ()
    """By rising ratio; a ratio that was refused is missing."""
    refused: str | None = None
    """Why a ratio, or all of them, could not be measured."""

    @property
    def units(self) -> int:
        """All units of these modules."""
        return sum(self.sizes)

    @property
    def label(self) -> str:
        """How tables and plots name the entry."""
        return " + ".join(module or "(model)" for module in self.modules)


class Sensitivity(Fact):
    """The metric with each layer of a model pruned alone."""

    version: str
    """Of the tool that measured."""
    measured_at: str
    """Date and time in UTC, ISO 8601."""
    task: str
    function: str
    """`validate` where the task has one of its own, else `evaluate`."""
    options: dict[str, Any]
    """Of the `magnitude` step, without its ratio."""
    ratios: tuple[float, ...]
    score: Score
    """Of the whole model."""
    parameters: int
    layers: tuple[LayerSensitivity, ...]


class StateInfo(Fact):
    """A state that a step file takes as an input and gives anew as an output; the batch is its first axis."""

    name: str
    """Of the input."""
    next_name: str
    """Of the output that is the input at the next step."""
    dtype: str
    shape: tuple[int | str, ...]
    """A dynamic axis is given by its name."""
    growing_axis: int | None = None
    """The axis that has no entries at first and one more with each position."""
    initial: float | tuple[float, ...] = 0.0
    """Before the first position: every number, or all numbers of one stream in C order."""

    def bytes(self, positions: int) -> int:
        """What one stream keeps after some positions."""
        sizes = [positions if axis == self.growing_axis else size for axis, size in enumerate(self.shape) if axis]
        width = {"float32": 4, "float16": 2, "float64": 8, "int64": 8, "int32": 4}[self.dtype]
        return width * math.prod(int(size) for size in sizes)


class StreamInput(Fact):
    """An input of the whole-sequence file, and what becomes of it in the step file."""

    name: str
    batch_axis: int | None
    time_axis: int | None
    """The axis that a step takes `chunk` positions of; none where a step takes the whole input."""
    lengths: bool = False
    """It holds the lengths of padded sequences, so the step file does not have it: a stream has no padding."""


class StreamOutput(Fact):
    """An output of the step file that is no state."""

    name: str
    batch_axis: int | None
    time_axis: int | None
    """None where it is an answer to all positions so far."""


class StreamInfo(Fact):
    """How a step file is run: what its metadata says under `compressor.stream`."""

    version: int = 1
    chunk: int
    """Positions in a step."""
    inputs: tuple[StreamInput, ...]
    outputs: tuple[StreamOutput, ...]
    states: tuple[StateInfo, ...]

    def state_bytes(self, positions: int) -> int:
        """What one stream keeps after some positions; the same number for all where nothing grows."""
        return sum(state.bytes(positions) for state in self.states)

    @property
    def grows(self) -> bool:
        """Whether a state grows with every position."""
        return any(state.growing_axis is not None for state in self.states)


class FileDescription(Fact):
    """What lies beside a file of a format that does not describe itself: `model.mnn.json` beside `model.mnn`."""

    version: Literal[1] = 1
    format: str
    runtime: str
    """What runs it, by its name in `compressor runtimes list`."""
    inputs: tuple[TensorInfo, ...]
    """In order; dtypes as in PyTorch, of which a runtime may want narrower integers."""
    outputs: tuple[TensorInfo, ...]
    metadata: dict[str, str] = {}
    """Under `compressor.stream` how a step file is run, a `StreamInfo`."""
    details: dict[str, str] = {}
    """What this runtime's loader needs to know."""


class Part(Fact):
    """A file beside an exported file."""

    path: str
    bytes: int
    sha256: str
    purpose: str
    """What it holds, in a few words."""
    shipped: bool = True
    """Whether the phone needs it; its bytes are then among those of the artifact."""


class RuntimeCheck(Fact):
    """An exported file in another runtime than its own."""

    runtime: str
    """Name and version."""
    parity: Parity


class Artifact(Fact):
    """An exported file."""

    format: str
    path: str
    """Relative to the run directory; the first where there are several files, see `parts`."""
    bytes: int
    """Of all files that the phone needs."""
    gzip_bytes: int
    sha256: str
    opset: int | None = None
    """None where the format has none."""
    needs: str = ""
    """The oldest runtime that reads it, such as `ONNX Runtime 1.14`."""
    ir_version: int | None = None
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    operators: dict[str, int] = {}
    """Operator type -> number of nodes; empty where the format does not tell."""
    parity: Parity
    """With PyTorch, in `runtime`."""
    runtime: str = ""
    """Name and version of what the file was run in for `parity`; empty in reports of older versions."""
    parts: tuple[Part, ...] = ()
    """Further files."""
    notes: tuple[str, ...] = ()
    """How it was made, where there was a choice."""
    checks: tuple[RuntimeCheck, ...] = ()
    """The same file in other runtimes."""
    seconds: float = 0.0
    stream: StreamInfo | None = None
    """How to run it, where it is a step file. Its `parity` is that of chained steps with PyTorch's whole sequence."""
    chained: Parity | None = None
    """Agreement of the chained steps of a step file with the whole-sequence file."""
    step: Artifact | None = None
    """The step file beside a whole-sequence file."""
    quantization: Quantization | None = None
    """What was rounded to 8 or 4 bits; `parity` is then that of the float file that it was made of."""


class Latency(Fact):
    """Latency of one file, in ms, with the conditions under which it was taken."""

    p10: float
    p50: float
    p90: float
    runs: int
    warmup: int
    batch: int
    length: int
    threads: int
    runtime: str
    samples: tuple[float, ...] = ()
    """A thinned sample of the timings, for plots."""


class SpeedUp(Fact):
    """Baseline latency / compressed latency, both timed interleaved in one process."""

    ratio: float
    interval: Interval
    within_noise: bool
    """True where the interval holds 1."""


class StepMeasurement(Fact):
    """Everything measured on the step file beside an exported file."""

    macs: int | None
    """Of one step."""
    peak_memory_bytes: int | None
    latency: Latency | None
    """Of one step; `length` is the number of its positions."""
    past: int
    """Positions before the step that was timed; it counts where a state grows."""
    score: Score
    """The same `evaluate`, every sequence run step by step from the initial states."""
    drop: Drop | None = None
    """Against the original's step file, or its whole-sequence file where it has none; none on the original."""
    speedup: SpeedUp | None = None
    """Against the original's step file."""


class Measurement(Fact):
    """Everything measured on one exported file (and the model behind it)."""

    label: Literal["original", "compressed"]
    artifact: Artifact
    parameters: int
    nonzeros: int
    macs: int | None
    """For one sample at the length of `latency`; none where an operator could not be counted."""
    peak_memory_bytes: int | None
    """Growth of the resident set of a fresh process that loads and runs the file."""
    latency: Latency | None
    score: Score
    torch_score: Score
    """The same `evaluate` on the PyTorch model."""
    layers: tuple[LayerSparsity, ...] = ()
    drop: Drop | None = None
    """Against the original's file; none on the original."""
    step: StepMeasurement | None = None
    """Of the step file, `artifact.step`; none where there is none."""


class Limit(Fact):
    """A limit of the recipe and what was reached."""

    name: str
    limit: float
    reached: float
    met: bool


class Environment(Fact):
    """Where and with what a run was made."""

    created: str
    """ISO 8601, UTC."""
    compressor: str
    python: str
    platform: str
    cpu: str
    cores: int
    device: str
    versions: dict[str, str]


class Report(Fact):
    """`report.json`: the truth of which the table, Markdown and HTML are views."""

    schema_version: int = SCHEMA_VERSION
    name: str
    description: str = ""
    task: str
    seed: int
    quick: bool = False
    recipe: dict[str, Any]
    """The resolved recipe, defaults filled in."""
    recipe_sha256: str
    original: Measurement
    elsewhere: tuple[Measurement, ...] = ()
    """The original in further formats, for exports to these."""
    steps: tuple[StepReport, ...]
    compressed: tuple[Measurement, ...]
    """One per export that is not refused, in the recipe's order."""
    speedups: tuple[SpeedUp | None, ...]
    """One per export: its original against it."""
    baselines: tuple[int, ...] = ()
    """One per export: which original it is compared with, 0 for `original`, 1 for the first of `elsewhere`; empty where
    all are compared with `original`."""
    refused: tuple[Skip, ...] = ()
    """Exports of which no file is right, and why; those that are there are measured all the same."""
    limits: tuple[Limit, ...] = ()
    notes: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    """Every file of the run directory that the run wrote, relative names."""
    environment: Environment

    def original_of(self, index: int) -> Measurement:
        """The original that export `index` is compared with: in the same format, where that was possible."""
        return (self.original, *self.elsewhere)[self.baselines[index] if self.baselines else 0]

    @property
    def limits_met(self) -> bool:
        """True where no limit is missed."""
        return all(limit.met for limit in self.limits)

    def to_json(self) -> str:
        """The report as JSON text, keys in the order of the fields; raises `ReportError` on a NaN or infinity."""
        _refuse_non_finite(self.model_dump(mode="python"), "report")
        return self.model_dump_json(indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Read `to_json`'s text back; raises `ReportError` where it is not such a text."""
        try:
            return cls.model_validate_json(text)
        except ValueError as error:
            raise ReportError(f"not a report of this tool: {error}", hint="run the recipe again") from error


def _refuse_non_finite(value: Any, path: str) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _refuse_non_finite(item, f"{path}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _refuse_non_finite(item, f"{path}.{index}")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ReportError(f"{path} is {value}", hint="a report holds finite numbers only")
