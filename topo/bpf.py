"""Programs for the kernel's BPF machine: assembled, loaded, put ahead of an interface (XDP), asked what they counted.

Written against bpf(2) and rtnetlink(7) alone: neither a compiler nor a library has to be there.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import platform
import re
import socket
import struct
from collections.abc import Callable, Iterator
from collections.abc import Mapping as MappingABC
from contextlib import contextmanager, nullcontext
from typing import Final

from topo import netns

_CALL_NUMBER: Final = {"x86_64": 321, "aarch64": 280}
_MAP_CREATE, _PROG_LOAD = 0, 5
_PROG_FD_BY_ID, _MAP_FD_BY_ID, _INFO_BY_FD = 13, 14, 15
_ARRAY: Final = 2
_MAPPED: Final = 1 << 10
"""Its memory is to be seen by processes, too: bpf(2) says BPF_F_MMAPABLE."""
_XDP: Final = 6
_HAS_FRAGS: Final = 1 << 5
"""The program is content with the first buffer of a frame: without it no port of a large MTU takes it."""
_MAP_IDS_AT: Final = 52
"""In struct bpf_prog_info: how many maps, and a pointer to where their ids are to be written."""

_SETLINK: Final = 19
_REQUEST_ACK: Final = 5
_ATTRIBUTE_XDP: Final = 43
_NESTED: Final = 0x8000
_XDP_FD, _XDP_FLAGS = 1, 3
_AFTER_DRIVER: Final = 1 << 1

_LIBC: Final = ctypes.CDLL(None, use_errno=True)

_LOAD_MAP: Final = 0x18
_SIZES: Final = {"u8": 0x10, "u16": 0x08, "u32": 0x00, "u64": 0x18}
_ALU: Final = {"=": 0xB0, "+=": 0x00, "-=": 0x10, "*=": 0x20, "&=": 0x50, "<<=": 0x60, ">>=": 0x70, "%=": 0x90}
_JUMPS: Final = {"==": 0x10, ">": 0x20, ">=": 0x30, "&": 0x40, "!=": 0x50, "<": 0xA0}

_TARGET: Final = r"\*\((?P<size>u\d+)\)\(r(?P<dst>\d+) \+ (?P<offset>-?\d+)\)"
_SOURCE: Final = r"\*\((?P<size>u\d+)\)\(r(?P<src>\d+) \+ (?P<offset>-?\d+)\)"
_OPERAND: Final = r"(?:r(?P<src>\d+)|(?P<number>-?\d+))"


_Found = dict[str, str | None]


def _kind(found: _Found) -> int:
    """Whether the second operand is a register."""
    return 0x08 if found["src"] else 0


_FORMS: Final[list[tuple[str, Callable[[_Found], int]]]] = [
    (r"exit", lambda _: 0x95),
    (r"goto (?P<label>\w+)", lambda _: 0x05),
    (r"call (?P<number>\d+)", lambda _: 0x85),
    (r"r(?P<dst>\d+) = map", lambda _: _LOAD_MAP),
    (rf"r(?P<dst>\d+) = {_SOURCE}", lambda found: 0x61 | _SIZES[found["size"] or ""]),
    (rf"{_TARGET} = r(?P<src>\d+)", lambda found: 0x63 | _SIZES[found["size"] or ""]),
    (rf"lock {_TARGET} \+= r(?P<src>\d+)", lambda found: 0xC3 | _SIZES[found["size"] or ""]),
    (
        rf"if r(?P<dst>\d+) (?P<how>==|!=|>=?|<|&) {_OPERAND} goto (?P<label>\w+)",
        lambda found: 0x05 | _JUMPS[found["how"] or ""] | _kind(found),
    ),
    (
        rf"r(?P<dst>\d+) (?P<how>=|\+=|-=|\*=|&=|<<=|>>=|%=) {_OPERAND}",
        lambda found: 0x07 | _ALU[found["how"] or ""] | _kind(found),
    ),
]
"""How a line is written, and what its operation's number is made of."""


class BpfError(netns.CommandError):
    """The kernel does not take a program. Says why."""


def assemble(text: str, map_fd: int) -> bytes:
    """A program in a notation like the kernel's own; `r1 = map` is the one map that it has.

    Raises:
        ValueError: a line is none that is known, or goes to a label that is not there.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    labels: dict[str, int] = {}
    at = 0
    for line in lines:
        if line.endswith(":"):
            labels[line[:-1]] = at
        else:
            at += 2 if line.endswith("= map") else 1
    code = b""
    for line in lines:
        if not line.endswith(":"):
            code += _instruction(line, map_fd, labels, len(code) // 8)
    return code


def _instruction(line: str, map_fd: int, labels: MappingABC[str, int], at: int) -> bytes:
    for form, encode in _FORMS:
        if match := re.fullmatch(form, line):
            found = match.groupdict()
            offset = int(found.get("offset") or 0)
            if label := found.get("label"):
                if label not in labels:
                    raise ValueError(f"no label: {line!r}")
                offset = labels[label] - at - 1
            dst, src = int(found.get("dst") or 0), int(found.get("src") or 0)
            number = map_fd if line.endswith("= map") else int(found.get("number") or 0)
            return _encoded(encode(found), dst, src, offset, number)
    raise ValueError(f"no instruction: {line!r}")


def _encoded(operation: int, dst: int, src: int, offset: int, number: int) -> bytes:
    if operation == _LOAD_MAP:
        # Two words: the upper half of what is loaded stands in the second, and a source of 1 says that it is a map.
        return struct.pack("<BBhi8x", operation, 1 << 4 | dst, 0, number)
    return struct.pack("<BBhi", operation, src << 4 | dst, offset, number)


class Numbers:
    """The 64-bit numbers that the one entry of a program's map has, where the program reads and writes them."""

    def __init__(self, map_fd: int, count: int) -> None:
        self._memory = memoryview(mmap.mmap(map_fd, 8 * count)).cast("Q")

    def __getitem__(self, index: int) -> int:
        return int(self._memory[index])

    def __setitem__(self, index: int, number: int) -> None:
        self._memory[index] = number


def attach(namespace: str | None, interface: str, text: str, count: int, first: MappingABC[int, int]) -> None:
    """Put a program ahead of an interface, in the place of any before. It stays as long as the interface does.

    `count` is how many 64-bit numbers its map's one entry has, `first` what some of them are to begin with.

    Raises:
        BpfError: the kernel, or the interface, takes no such program.
    """
    try:
        map_fd = _bpf(_MAP_CREATE, struct.pack("<IIIII", _ARRAY, 4, 8 * count, 1, _MAPPED))
        try:
            numbers = Numbers(map_fd, count)
            for index, number in first.items():
                numbers[index] = number
            program = _load(assemble(text, map_fd))
        finally:
            os.close(map_fd)
        try:
            _set_link(namespace, interface, program)
        finally:
            os.close(program)
    except OSError as error:
        raise BpfError(
            f"{interface}: cannot put a filter ahead of it: {error}: it takes root (CAP_BPF, CAP_NET_ADMIN), and a"
            " kernel from 5.18 on that has BPF"
        ) from error


def attached(namespace: str | None) -> dict[str, int]:
    """Which interfaces have a program ahead of them, and the program's number."""
    links = json.loads(netns.run(namespace, ["ip", "-j", "link", "show"]))
    return {link["ifname"]: link["xdp"]["prog"]["id"] for link in links if "xdp" in link}


def numbers(program_id: int, count: int) -> Numbers:
    """The numbers of a program's map.

    Raises:
        OSError: there is no such program, or its map is another.
    """
    with _open(_PROG_FD_BY_ID, program_id) as program:
        (map_id,) = _map_ids(program)
    with _open(_MAP_FD_BY_ID, map_id) as map_fd:
        return Numbers(map_fd, count)


@contextmanager
def _open(command: int, number: int) -> Iterator[int]:
    found = _bpf(command, struct.pack("<II", number, 0))
    try:
        yield found
    finally:
        os.close(found)


def _map_ids(program: int) -> list[int]:
    ids = (ctypes.c_uint32 * 1)()
    info = ctypes.create_string_buffer(_MAP_IDS_AT + 12)
    struct.pack_into("<IQ", info, _MAP_IDS_AT, len(ids), ctypes.addressof(ids))
    _bpf(_INFO_BY_FD, struct.pack("<IIQ", program, len(info), ctypes.addressof(info)))
    return list(ids)


def _load(code: bytes) -> int:
    held, terms = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(b"Dual MIT/GPL")
    log = ctypes.create_string_buffer(1 << 20)
    attributes = struct.pack(
        "<IIQQIIQII",
        *(_XDP, len(code) // 8, ctypes.addressof(held), ctypes.addressof(terms)),
        *(1, len(log), ctypes.addressof(log), 0, _HAS_FRAGS),
    )
    try:
        return _bpf(_PROG_LOAD, attributes)
    except OSError as error:
        said = log.value.decode(errors="replace").strip()
        raise OSError(error.errno, f"{os.strerror(error.errno or 0)}\n{said[-2000:]}".strip()) from error


def _set_link(namespace: str | None, interface: str, program: int) -> None:
    """In the driver or, where that takes none of this kind (of this MTU, say), after it."""
    try:
        _set_link_as(namespace, interface, program, 0)
    except OSError:
        _set_link_as(namespace, interface, program, _AFTER_DRIVER)


def _set_link_as(namespace: str | None, interface: str, program: int, flags: int) -> None:
    there = netns.entered(namespace) if namespace else nullcontext()
    with there, socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as link:
        index = socket.if_nametoindex(interface)
        nested = struct.pack("<HHiHHI", 8, _XDP_FD, program, 8, _XDP_FLAGS, flags)
        body = struct.pack("<BxHiII", 0, 0, index, 0, 0)
        body += struct.pack("<HH", 4 + len(nested), _ATTRIBUTE_XDP | _NESTED) + nested
        link.send(struct.pack("<IHHII", 16 + len(body), _SETLINK, _REQUEST_ACK, 1, 0) + body)
        (code,) = struct.unpack_from("<i", link.recv(1 << 16), 16)
    if code:
        raise OSError(-code, os.strerror(-code))


def _bpf(command: int, attributes: bytes) -> int:
    number = _CALL_NUMBER.get(platform.machine())
    if number is None:
        raise OSError(f"bpf(2) has an unknown number on {platform.machine()}")
    buffer = ctypes.create_string_buffer(attributes.ljust(128, b"\0"), 128)
    result = int(_LIBC.syscall(number, command, buffer, len(buffer)))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result
