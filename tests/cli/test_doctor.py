"""`doctor`: what it finds, and when it fails."""

import json
import re
import tempfile

from compressor.cli.doctor import owners
from tests.cli.conftest import call


def test_a_working_installation_has_no_problem():
    result = call("doctor", "--json")
    findings = {finding["what"]: finding for finding in json.loads(result.out)}
    assert result.code == 0
    assert {"python", "torch", "onnxruntime", "threads", "format `onnx`", "recipes"} <= set(findings)
    assert [what for what, finding in findings.items() if finding["status"] == "problem"] == []


def test_a_temporary_folder_that_cannot_be_written_is_a_problem(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    result = call("doctor")
    assert result.code == 2
    said = f"temporary folder +{tmp_path}/nowhere cannot be written: No such file or directory"
    assert re.search(said, result.out)


def test_another_owner_of_the_import_name_is_a_problem():
    finding = owners(["edge-compressor", "django-compressor"])
    assert (finding.status, finding.detail) == (
        "problem",
        "django-compressor installs it too; use a virtual environment without it",
    )


def test_our_own_distribution_and_a_checkout_are_fine():
    assert (owners(["edge_compressor"]).status, owners([]).status) == ("ok", "ok")
