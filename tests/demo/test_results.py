"""Results come over the network: only such as the page makes are kept, and never more than a folder can take."""

import json

import pytest

from compressor.demo import results
from compressor.errors import OutputError, UsageError

GOOD = {
    "file": "model.onnx",
    "browser": "Chrome",
    "largest_difference": 1e-7,
    "calls_per_sample": 4,
    "milliseconds": [2.0, 1.0, 3],
    "original_milliseconds": [4.0, 4.5, 5.0],
}


def sent(**changes):
    return json.dumps(GOOD | changes).encode()


def test_a_result_is_kept_beside_the_others_and_read_again(tmp_path):
    for _ in range(2):
        results.keep(tmp_path, results.checked(sent(), {"model.onnx"}))
    first, second = results.read(tmp_path)
    assert first.milliseconds == second.milliseconds == [2.0, 1.0, 3.0]
    assert first.received.endswith("+00:00")
    assert "model.onnx: 2 ms (median), original 4.5 ms: 2.25x as fast" in first.summary
    assert [path.name for path in tmp_path.iterdir()] == [results.RESULTS_FILE]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"\xff",
        b"{" * 50_000,
        sent(file="report.json"),
        sent(file="../model.onnx"),
        sent(milliseconds=[]),
        sent(milliseconds=[1.0] * 501),
        sent(milliseconds=[-1.0]),
        sent(milliseconds=[1e300]),
        sent(milliseconds=["1.0"]),
        sent(milliseconds=[float("nan")]),
        sent(calls_per_sample=0),
        sent(browser="x" * 301),
        sent(browser="a\x1b[2Jb"),
        sent(more=1),
    ],
)
def test_anything_else_is_refused(content):
    with pytest.raises(ValueError, match=r"PhoneResult|no such file"):
        results.checked(content, {"model.onnx"})


def test_there_is_an_end_to_what_a_folder_takes(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "MOST_RESULTS", 1)
    results.keep(tmp_path, results.checked(sent(), {"model.onnx"}))
    before = (tmp_path / results.RESULTS_FILE).read_bytes()
    with pytest.raises(OutputError, match="has 1 results"):
        results.keep(tmp_path, results.checked(sent(), {"model.onnx"}))
    assert (tmp_path / results.RESULTS_FILE).read_bytes() == before


def test_a_file_of_somebody_else_is_not_replaced(tmp_path):
    (tmp_path / results.RESULTS_FILE).write_text("notes of mine")
    with pytest.raises(UsageError, match="holds no results of phones"):
        results.keep(tmp_path, results.checked(sent(), {"model.onnx"}))
    assert (tmp_path / results.RESULTS_FILE).read_text() == "notes of mine"
