"""The assembler of the filter ahead of a port. What the filter does is tried in tests/attack."""

from __future__ import annotations

from types import ModuleType

import pytest

from topo import port_filter, uplink_filter
from topo.bpf import assemble


def test_instructions_are_encoded_as_the_kernel_reads_them() -> None:
    program = """
    r1 = map
    r2 = *(u16)(r8 + 12)
    if r2 != -1 goto end
    *(u32)(r10 + -4) = r2
    lock *(u64)(r7 + 24) += r1
    r3 <<= 3
    r3 += r7
    end:
    exit
    """
    assert assemble(program, 5).hex(" ", 8) == (
        "1811000005000000 0000000000000000 69820c0000000000 55020400ffffffff 632afcff00000000"
        " db17180000000000 6703000003000000 0f73000000000000 9500000000000000"
    )


@pytest.mark.parametrize("line", ["r1 = ", "goto nowhere", "r1 ?= 2", "if r1 == 2 goto nowhere"])
def test_what_is_no_instruction_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"^no "):
        assemble(line, 5)


@pytest.mark.parametrize("filter_", [port_filter, uplink_filter])
def test_the_filters_are_programs(filter_: ModuleType) -> None:
    assert len(assemble(filter_.program(), 5)) < 4096 * 8
