"""The facts of a run by subject, frozen, to and from JSON. No rendering and no measuring here.

Units: sizes in bytes, latencies in milliseconds, MACs as a count (FLOPs = 2 x MACs), sparsity and ratio in 0..1.

Everything outside of this package imports the names from here, not from the modules.
"""

from compressor.report.artifacts import Artifact, Emulated, FileDescription, Part, RuntimeCheck, TensorInfo
from compressor.report.axes import OpenAxes, TensorAxes
from compressor.report.conditions import Conditions
from compressor.report.environment import Environment, Stage
from compressor.report.exports import ExportedFile, ExportReport
from compressor.report.fact import Fact
from compressor.report.fingerprints import Fingerprints
from compressor.report.frontier import KnownFrontier, KnownPoint, KnownRecipe
from compressor.report.latency import Latency, SpeedUp
from compressor.report.layers import LayerCost
from compressor.report.measurements import LayerSparsity, Measurement, StepMeasurement
from compressor.report.parity import Noise, Origin, OutputNoise, Parity, ParityPoint
from compressor.report.probes import Probe, ProbeFile, ProbeLength, ProbeResult, ProbeScore, Verdict
from compressor.report.quantization import Quantization, QuantizationPoint, QuantizedMatrix
from compressor.report.report import Limit, Report
from compressor.report.reproduction import Outcome, RepeatedFile, RepeatedNumber, Reproduction
from compressor.report.runs import RunFile, Runs, side_by_side
from compressor.report.scores import Drop, Interval, Score
from compressor.report.search import GoalCost, GoalName, SearchPoint, SearchReport
from compressor.report.sensitivity import LayerSensitivity, Sensitivity, SensitivityPoint
from compressor.report.steps import Change, Control, Skip, StepReport
from compressor.report.streaming import StateInfo, StreamInfo, StreamInput, StreamOutput

__all__ = [
    "Artifact",
    "Change",
    "Conditions",
    "Control",
    "Drop",
    "Emulated",
    "Environment",
    "ExportReport",
    "ExportedFile",
    "Fact",
    "FileDescription",
    "Fingerprints",
    "GoalCost",
    "GoalName",
    "Interval",
    "KnownFrontier",
    "KnownPoint",
    "KnownRecipe",
    "Latency",
    "LayerCost",
    "LayerSensitivity",
    "LayerSparsity",
    "Limit",
    "Measurement",
    "Noise",
    "OpenAxes",
    "Origin",
    "Outcome",
    "OutputNoise",
    "Parity",
    "ParityPoint",
    "Part",
    "Probe",
    "ProbeFile",
    "ProbeLength",
    "ProbeResult",
    "ProbeScore",
    "Quantization",
    "QuantizationPoint",
    "QuantizedMatrix",
    "RepeatedFile",
    "RepeatedNumber",
    "Report",
    "Reproduction",
    "RunFile",
    "Runs",
    "RuntimeCheck",
    "Score",
    "SearchPoint",
    "SearchReport",
    "Sensitivity",
    "SensitivityPoint",
    "Skip",
    "SpeedUp",
    "Stage",
    "StateInfo",
    "StepMeasurement",
    "StepReport",
    "StreamInfo",
    "StreamInput",
    "StreamOutput",
    "TensorAxes",
    "TensorInfo",
    "Verdict",
    "side_by_side",
]
