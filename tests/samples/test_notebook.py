"""The notebook runs from its first cell to its last, and shows the report as a page."""

from pathlib import Path

import pytest

SAMPLES = Path(__file__).parents[2] / "samples"
NOTEBOOK = SAMPLES / "in_a_notebook.ipynb"


@pytest.mark.slow
def test_the_notebook_runs_and_shows_its_report(monkeypatch):
    import nbclient
    import nbformat

    monkeypatch.setenv("PYTHONPATH", str(SAMPLES.parent))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(SAMPLES)}}).execute()
    shown = [output["data"] for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    (page,) = [data["text/html"] for data in shown if "text/html" in data]
    assert page.startswith("<iframe srcdoc=")
    assert "units-half" in page
    printed = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "step 1 of" in printed
    assert " B -> " in printed


def test_the_notebook_holds_no_outputs():
    import json

    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells if cell["cell_type"] == "code")
