"""`bench --adb`: against a stand-in `adb` on the PATH that keeps the phone's files in a folder and really runs them."""

import json
import sys
import textwrap

import pytest

from compressor.cli.bench_phone import with_serial
from tests.cli.conftest import call

FEW = ("--rounds", "6", "--runs", "2", "--cool-down", "0")
ADB = """
    #!/bin/sh
    # adb devices | adb -s SERIAL push|pull|shell ...; /data/local/tmp lies in the folder HOME_OF_IT.
    home={home}
    if [ "$1" = devices ]; then cat "$home/devices"; exit 0; fi
    shift 2
    echo "$*" >> "$home/calls"
    case "$1" in
      push) [ -f "$home/full" ] && {{ echo "remote write failed: No space left on device" >&2; exit 1; }}
            mkdir -p "$home/data/local/tmp"; cp -r "$2" "$home$3" ;;
      pull) cp "$home$2" "$3" ;;
      shell) [ -f "$home/gone" ] && {{ echo "error: device '8A' not found" >&2; exit 1; }}
             sh -c "$(printf %s "$2" | sed "s#/data/local/tmp#$home/data/local/tmp#g")" ;;
    esac
"""
PERF_TEST = """
    #!{python}
    # The command line and the result file of onnxruntime_perf_test, done with ONNX Runtime's Python package.
    import pathlib, sys, time
    import onnx, onnxruntime
    *options, model, result = sys.argv[1:]
    given = dict(zip(options[::2], options[1::2], strict=True))
    assert (given["-e"], given["-m"]) == ("cpu", "times"), given
    feed = {{}}
    for path in pathlib.Path(model).parent.glob("test_data_set_0/*.pb"):
        tensor = onnx.TensorProto.FromString(path.read_bytes())
        feed[tensor.name] = onnx.numpy_helper.to_array(tensor)
    session = onnxruntime.InferenceSession(model)
    with open(result, "w") as file:
        for run in range(int(given["-r"])):
            start = time.perf_counter()
            session.run(None, feed)
            file.write(f"0,{{time.perf_counter() - start:g}},1,2,{{run}}\\n")
"""
BENCHNCNN = """
    #!/bin/sh
    [ "$6" = param=0/model.param ] && [ "$7" = "shape=[13,7]" ] && [ -f "$(dirname "$0")/0/model.param" ] || exit 9
    echo "loop_count = $1" >&2
    echo "      0/model.param  min =    1.25  max =    2.50  avg =    1.50" >&2
"""


def script(path, text, **values):
    path.write_text(textwrap.dedent(text).format(python=sys.executable, **values).lstrip())
    path.chmod(0o755)
    return path


@pytest.fixture
def phone(tmp_path, monkeypatch):
    """The folder that stands for the phone; one phone is connected."""
    home = tmp_path / "phone"
    home.mkdir()
    (home / "devices").write_text("List of devices attached\n8A\tdevice\n\n")
    (tmp_path / "bin").mkdir()
    script(tmp_path / "bin" / "adb", ADB, home=home)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    return home


@pytest.fixture
def perf_test(tmp_path):
    return script(tmp_path / "onnxruntime_perf_test", PERF_TEST)


def test_files_are_timed_on_the_phone_in_turns_and_nothing_is_left_there(phone, perf_test, finished, files):
    out = finished[0]
    result = call("bench", out / "original.onnx", out / "model.onnx", "--adb", "--runner", perf_test, "--task",
                  files / "task.py", "--json", *FEW)  # fmt: skip
    assert result.code == 0, result.err
    first, second = json.loads(result.out)
    assert (first["speedup"], first["device"]) == (None, "8A")
    assert first["latency"]["length"] == 7
    assert first["latency"]["runs"] == second["latency"]["runs"] == 12
    assert first["latency"]["runtime"] == "onnxruntime_perf_test on a phone that does not name itself"
    assert second["speedup"]["interval"]["low"] <= second["speedup"]["ratio"] <= second["speedup"]["interval"]["high"]
    assert list((phone / "data/local/tmp").iterdir()) == []
    order = [line.split(" && ")[2] for line in (phone / "calls").read_text().splitlines() if "./runner" in line]
    assert len(order) == 12
    assert all({"0/model.onnx" in line for line in order[at : at + 2]} == {True, False} for at in range(0, 12, 2))
    assert all("-r 2 -x 1" in line for line in order)


def test_python_on_the_phone_runs_the_files_with_a_table_like_that_of_this_machine(phone, finished):
    out = finished[0]
    result = call("bench", out / "original.onnx", out / "model.onnx", "--adb", "8A", "--runner",
                  f"python:{sys.executable}", "--threads", "2", *FEW)  # fmt: skip
    assert result.code == 0, result.err
    first = result.out.splitlines()[2]
    assert " baseline " in first
    assert "ONNX Runtime 1" in first
    assert "of Python on a phone" in first
    assert "threads 2, 12 runs each after 3 warm-up runs a round" in result.err


def test_ncnns_benchmark_tells_the_mean_of_a_burst(phone, tmp_path):
    script(tmp_path / "benchncnn", BENCHNCNN)
    (tmp_path / "net.param").write_text("7767517\n")
    result = call("bench", tmp_path / "net.param", "--adb", "--runner", tmp_path / "benchncnn", "--shapes", "[13,7]",
                  "--json", *FEW)  # fmt: skip
    (fact,) = json.loads(result.out)
    assert (fact["latency"]["p50"], fact["latency"]["runs"]) == (1.5, 6)
    assert fact["latency"]["runtime"].startswith("benchncnn (weights of zeros, means of bursts) on")
    assert "has to be told the shapes" in call("bench", tmp_path / "net.param", "--adb", "--runner",
                                               tmp_path / "benchncnn").err  # fmt: skip


@pytest.mark.parametrize(
    ("devices", "serial", "message", "hint"),
    [
        ("", None, "no phone is connected", "turn USB debugging on"),
        ("8A\tdevice\n9B\tdevice\n", None, "2 phones are connected: 8A (device), 9B (device)", "--adb SERIAL"),
        ("8A\tdevice\n", "7C", "no phone `7C` is connected", "lists 8A (device)"),
        ("8A\tunauthorized\n", None, "phone 8A is not ready: unauthorized", "allow USB debugging for this computer"),
        ("8A\toffline\n", "8A", "phone 8A is not ready: offline", "`adb kill-server`"),
        ("8A\tno permissions (user in plugdev group); see [http]\n", None, "not ready: no permissions", "udev"),
    ],
)
def test_a_phone_that_cannot_be_used_is_named(phone, perf_test, finished, devices, serial, message, hint):
    (phone / "devices").write_text(f"List of devices attached\n{devices}\n")
    result = call("bench", finished[0] / "model.onnx", "--runner", perf_test, "--adb", *([serial] if serial else []))
    assert result.code == 2
    assert message in result.err
    assert hint in result.err


def test_no_adb_no_space_and_a_phone_that_is_unplugged(phone, perf_test, finished, monkeypatch):
    command = ("bench", finished[0] / "model.onnx", "--adb", "--runner", perf_test, *FEW)
    (phone / "full").touch()
    full = call(*command)
    assert "pushing files to the phone failed (exit status 1)" in full.err
    assert "No space left on device" in full.err
    (phone / "gone").touch()
    assert "asking the phone for its model failed (exit status 1)" in call(*command).err
    monkeypatch.setenv("PATH", "/nowhere")
    assert "there is no `adb` on the PATH\nhint: install Android's platform tools" in call(*command).err


def test_a_runner_that_crashes_or_tells_nothing_is_named_with_its_last_lines(phone, tmp_path, finished):
    for text, message in (
        ("#!/bin/sh\necho loading\nkill -11 $$\n", "failed (exit status 139)"),
        ('#!/bin/sh\nfor last; do :; done\necho nonsense > "$last"\n', "told the time of 0 runs"),
        ("\x7fELF for another processor", "built for the phone's processor"),
    ):
        runner = script(tmp_path / "my_perf_test", text.replace("{", "{{").replace("}", "}}"))
        result = call("bench", finished[0] / "model.onnx", "--adb", "--runner", runner, *FEW)
        assert (result.code, message in result.err) == (2, True), result.err
        assert list((phone / "data/local/tmp").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--adb",), "a phone needs a program that runs the files"),
        (("--runner", "x"), "`--runner` is for a phone"),
        (("--cool-down", "1"), "`--cool-down` is for a phone"),
        (("--adb", "--runner", "none"), "there is no runner `none`"),
        (("--adb", "--runner", __file__), "what kind of runner is `test_bench_phone.py`?"),
        (("--adb", "--runner", "python:python3", "--shapes", "[1]"), "`--shapes` is for benchncnn"),
        (("--adb", "--runner", "python:python3", "--push", "none"), "there is no file `none`"),
        (("--adb", "--runner", "python:python3", "--rounds", "2"), "an interval of 95% needs 6 rounds"),
    ],
)
def test_options_that_cannot_be_meant(phone, finished, arguments, message):
    result = call("bench", finished[0] / "model.onnx", *arguments)
    assert (result.code, message in result.err) == (2, True), result.err


def test_the_serial_number_may_be_left_out(tmp_path):
    file = tmp_path / "a.onnx"
    file.touch()
    assert with_serial(["bench", "--adb"]) == ["bench", "--adb", "any"]
    assert with_serial(["bench", "--adb", str(file)]) == ["bench", "--adb", "any", str(file)]
    assert with_serial(["bench", "--adb", "--json"]) == ["bench", "--adb", "any", "--json"]
    assert with_serial(["bench", "--adb", "8A", "x"]) == ["bench", "--adb", "8A", "x"]
