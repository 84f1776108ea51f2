"""What the page shows of a run, and what of the folder may be asked for."""

import pytest

from compressor.demo.contents import contents
from compressor.errors import UsageError


def test_files_with_programs_are_shown_beside_the_original_of_the_same_form(folder, runtime):
    whole, step = contents(folder, runtime).files
    assert (whole.file, whole.original, whole.step) == ("model.onnx", "original.onnx", False)
    assert (step.file, step.original, step.step) == ("model.step.onnx", "", True)


def test_nothing_else_of_the_folder_has_an_address(folder, runtime):
    addresses = contents(folder, runtime).addresses
    assert {name for name in addresses if name.startswith("run/")} == {
        "run/model.onnx",
        "run/original.onnx",
        "run/use/model.mjs",
        "run/use/model.example.json",
        "run/model.step.onnx",
        "run/use/model.step.mjs",
        "run/use/model.step.example.json",
    }
    assert all(path.is_file() for path in addresses.values())


def test_a_folder_without_a_run_or_without_programs_is_refused(folder, runtime, tmp_path):
    with pytest.raises(UsageError, match=r"report\.json"):
        contents(tmp_path / "nowhere", runtime)
    report = folder / "report.json"
    report.write_text(report.read_text().replace(".mjs", ".gone"))
    with pytest.raises(UsageError, match="has no programs in `use/`") as caught:
        contents(folder, runtime)
    assert "not with --quick" in caught.value.hint


def test_a_report_that_was_tampered_with_opens_no_other_folder(folder, runtime):
    report = folder / "report.json"
    report.write_text(report.read_text().replace('"original.onnx"', '"../../../etc/passwd"'))
    shown = contents(folder, runtime)
    assert shown.files[0].original == "../../../etc/passwd"
    assert not any(".." in name or "passwd" in str(path) for name, path in shown.addresses.items())
