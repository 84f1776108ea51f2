"""What is told of a fault of the tool."""

import pytest
import torch

from compressor.cli import fault


def test_allocators_that_fail_are_known_whatever_they_raise():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**60)
    assert fault.is_out_of_memory(raised.value)
    assert fault.is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert not fault.is_out_of_memory(RuntimeError("size mismatch"))


def test_the_report_quotes_the_command_so_that_it_can_be_run_again():
    text = fault.describe(ValueError("one\ntwo"), ["run", "my recipe.yaml"])
    assert text.startswith("error: compressor failed: ValueError: one\ncommand: compressor run 'my recipe.yaml'\n")
    assert "torch " in text
