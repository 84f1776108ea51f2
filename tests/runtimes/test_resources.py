"""What the machine has, and what is refused for it."""

import os

import pytest

from compressor.errors import UsageError
from compressor.runtimes.resources import MOST_THREADS, check_threads, memory, refuse_larger


def test_memory_is_at_most_the_machines():
    assert 1 << 26 < memory() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_what_takes_more_is_refused_with_both_sizes():
    refuse_larger(memory(), "a tensor", "smaller")
    with pytest.raises(UsageError, match=r"a tensor takes 1e\+03 GiB of memory, and there are .* GiB") as refused:
        refuse_larger(1e3 * 2**30 if memory() < 1e3 * 2**30 else 2 * memory(), "a tensor", "make it smaller")
    assert refused.value.hint == "make it smaller"


@pytest.mark.parametrize("threads", [0, -1, MOST_THREADS + 1, 10**6, 10**30])
def test_threads_that_no_machine_has_are_refused(threads):
    with pytest.raises(UsageError, match=f"threads is {threads}"):
        check_threads(threads)
