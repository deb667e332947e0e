"""What stands ahead of a guest's port, on the operator's side of it: no frame reaches Open vSwitch but through it.

Open vSwitch keeps a cached flow for each value of whatever it looks at, and in its userspace datapath reads each frame
before it can refuse it. What a guest may vary without limit, or must not send without limit, is therefore met here:

- *Other types* than ARP, IPv4 and IPv6 end here: Open vSwitch always looks at the ethertype whole. A tag that the
  kernel has taken off stands beside the frame, and is Open vSwitch's to refuse.
- *The destination MAC*, which decides nothing, is overwritten: all of neighbour discovery with a multicast one, all
  else with that of all.
- *ARP and neighbour discovery* have a rate: they are answered packet by packet, with a cached flow for each target.
- *IP protocols* have a rate at which new ones may come, because Open vSwitch looks at the number whole.
- *Pairs of addresses*, with source MAC and protocol, have a rate at which new ones may come: a guest talks to many, but
  a flood of random ones is met here rather than frame by frame in Open vSwitch.
- *All frames* have a rate.
- *What hides in fragments* ends here: neighbour discovery (RFC 6980), a DHCP server's UDP port, headers after a
  fragment header; Open vSwitch shows neither ports nor types of any fragment.
"""

from __future__ import annotations

import secrets
import socket
from typing import Final

from topo import bpf

NEIGHBOURS_PER_SECOND: Final = 20
"""Open vSwitch forgets a flow that nothing has used for 10 s: times these, it is what a guest can have it learn."""
NEIGHBOURS_AT_ONCE: Final = 80
PROTOCOLS_PER_SECOND: Final = 1
PROTOCOLS_AT_ONCE: Final = 16
PROTOCOL_SECONDS: Final = 10
"""For so long after its last packet a protocol is no new one."""
PAIRS_PER_SECOND: Final = 5000
PAIRS_AT_ONCE: Final = 5000
PAIRS: Final = 4096
"""So many pairs, or fewer where two fall together, are known at a time."""
FRAMES_PER_SECOND: Final = 100_000
FRAMES_AT_ONCE: Final = 10_000

REFUSED: Final = {
    "types": "neither ARP nor IP",
    "hidden": "neighbour discovery, or a DHCP server, hidden in fragments; or more IPv6 headers than are looked past",
    "neighbours": "more ARP and neighbour discovery than the port may send",
    "protocols": "more IP protocols that are new than the port may use",
    "pairs": "more pairs of addresses that are new than the port may use",
    "frames": "more frames than the port may send",
}
"""What it counts."""

_CLOCKS: Final = {"neighbours": 0, "protocols": 8, "pairs": 16, "frames": 24}
_COUNTERS: Final = {name: 8 * (len(_CLOCKS) + number) for number, name in enumerate(REFUSED)}
_SEEN: Final = 8 * (len(_CLOCKS) + len(REFUSED))
"""Where in the map's entry what is: of each protocol, at _SEEN, when its last packet came."""
_KNOWN: Final = _SEEN + 8 * 256
"""After these: of each pair of addresses that is known, a sum that tells it from others."""
_VALUES: Final = _KNOWN // 8 + PAIRS
_SUMMED: Final = {
    "ipv4": ((4, 6), (2, 10), (4, 26), (4, 30)),
    "ipv6": ((4, 6), (2, 10), *((8, at) for at in range(22, 54, 8))),
}
"""Bytes that make a pair of addresses, where they are in the frame: source MAC, source and destination."""
_SECOND: Final = 1_000_000_000
_HEADERS: Final = 6
"""IPv6 headers that are looked past."""
_HOP_BY_HOP, _UDP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _ICMPV6, _OPTIONS = 0, 17, 43, 44, 51, 58, 60
_DHCP_SERVER, _DHCPV6_SERVER = 67, 547
_LINK_FIRST, _LINK_LAST, _MLD2 = 130, 137, 143
_DROP, _PASS = 1, 2


def attach(namespace: str | None, interface: str) -> None:
    """Put the filter ahead of a port, in the place of any that is there; its counters begin anew.

    The interface is in the network namespace of this name; None: in that of this process.

    Raises:
        BpfError: the kernel does not take it. The port must then not be plugged.
    """
    bpf.attach(namespace, interface, program(), _VALUES)


def refused(namespace: str, interface: str) -> dict[str, int]:
    """How many frames of the port have ended here, by what `REFUSED` calls them."""
    counted = bpf.read(namespace, interface, _VALUES)
    return {name: counted[at // 8] for name, at in _COUNTERS.items()} if counted else {}


def program() -> str:
    """The filter, for `bpf.assemble`.

    r6 the frame's context, r7 clocks and counters, r8 where the frame begins, r9 where it ends.
    """
    return f"""
    r6 = r1
    r1 = 0
    *(u32)(r10 + -4) = r1
    r2 = r10
    r2 += -4
    r1 = map
    call 1
    if r0 == 0 goto drop
    r7 = r0
    r8 = *(u32)(r6 + 0)
    r9 = *(u32)(r6 + 4)
    r1 = r8
    r1 += 14
    if r1 > r9 goto types
    r1 = *(u16)(r8 + 12)
    if r1 == {socket.htons(0x0800)} goto ipv4
    if r1 == {socket.htons(0x86DD)} goto ipv6
    if r1 != {socket.htons(0x0806)} goto types
    r1 = -1
    r2 = -1
    goto neighbour
    {_ipv4()}
    {_ipv6()}
    neighbour:
    *(u32)(r8 + 0) = r1
    *(u16)(r8 + 4) = r2
    {_rate("neighbours", NEIGHBOURS_PER_SECOND, NEIGHBOURS_AT_ONCE)}
    goto any
    protocol:
    *(u64)(r10 + -16) = r2
    r6 = r2
    r6 <<= 3
    r6 += r7
    call 5
    r1 = *(u64)(r6 + {_SEEN})
    r2 = {PROTOCOL_SECONDS * _SECOND // 1000}
    r2 *= 1000
    r1 += r2
    if r1 > r0 goto known
    {_rate("protocols", PROTOCOLS_PER_SECOND, PROTOCOLS_AT_ONCE)}
    known:
    *(u64)(r6 + {_SEEN}) = r0
    {_pairs()}
    other:
    r1 = -1
    *(u32)(r8 + 0) = r1
    *(u16)(r8 + 4) = r1
    any:
    {_rate("frames", FRAMES_PER_SECOND, FRAMES_AT_ONCE)}
    r0 = {_PASS}
    exit
    {"".join(_refuse(name) for name in REFUSED)}
    drop:
    r0 = {_DROP}
    exit
    """


def _ipv4() -> str:
    """A first fragment must not come from a DHCP server's port. Too short for addresses: Open vSwitch refuses it."""
    return f"""
    ipv4:
    r1 = r8
    r1 += 34
    if r1 > r9 goto short
    r2 = *(u8)(r8 + 23)
    r3 = *(u16)(r8 + 20)
    if r3 & {socket.htons(0x1FFF)} goto protocol
    if r3 & {socket.htons(0x2000)} goto first
    goto protocol
    first:
    if r2 != {_UDP} goto protocol
    r3 = *(u8)(r8 + 14)
    r3 &= 15
    r3 <<= 2
    r1 = r8
    r1 += r3
    r1 += 14
    {_udp(_DHCP_SERVER)}
    """


def _ipv6() -> str:
    """r1 the header that is looked at, r2 which one it is, r5 whether it is in a fragment."""
    steps = "".join(_header(step) for step in range(_HEADERS))
    return f"""
    ipv6:
    r1 = r8
    r1 += 54
    if r1 > r9 goto short
    r2 = *(u8)(r8 + 20)
    r5 = 0
    {steps}
    header{_HEADERS}:
    goto hidden
    last:
    if r2 == {_ICMPV6} goto icmpv6
    if r5 == 0 goto protocol
    if r2 != {_UDP} goto protocol
    {_udp(_DHCPV6_SERVER)}
    icmpv6:
    r3 = r1
    r3 += 1
    if r3 > r9 goto hidden
    r3 = *(u8)(r1 + 0)
    if r3 == {_MLD2} goto link
    if r3 > {_LINK_LAST} goto protocol
    if r3 < {_LINK_FIRST} goto protocol
    link:
    if r5 != 0 goto hidden
    r1 = {socket.htonl(0x33330000)}
    r2 = {socket.htons(1)}
    goto neighbour
    """


def _header(step: int) -> str:
    """RFC 8200, 4: lengths are in 8 bytes, but for the authentication header's, RFC 4302, 2.2."""
    return f"""
    header{step}:
    if r2 == {_FRAGMENT} goto fragment{step}
    if r2 == {_HOP_BY_HOP} goto options{step}
    if r2 == {_ROUTING} goto options{step}
    if r2 == {_OPTIONS} goto options{step}
    if r2 != {_AUTHENTICATION} goto last
    r4 = 2
    goto next{step}
    options{step}:
    if r5 != 0 goto hidden
    r4 = 3
    next{step}:
    r3 = r1
    r3 += 8
    if r3 > r9 goto hidden
    r2 = *(u8)(r1 + 0)
    r3 = *(u8)(r1 + 1)
    if r4 == 2 goto words{step}
    r3 += 1
    r3 <<= 3
    goto skip{step}
    words{step}:
    r3 += 2
    r3 <<= 2
    skip{step}:
    r1 += r3
    goto header{step + 1}
    fragment{step}:
    if r5 != 0 goto hidden
    r3 = r1
    r3 += 8
    if r3 > r9 goto hidden
    r5 = 1
    r2 = *(u8)(r1 + 0)
    r3 = *(u16)(r1 + 2)
    r1 += 8
    if r3 & {socket.htons(0xFFF8)} goto later{step}
    goto header{step + 1}
    later{step}:
    if r2 == {_FRAGMENT} goto hidden
    if r2 == {_HOP_BY_HOP} goto hidden
    if r2 == {_ROUTING} goto hidden
    if r2 == {_OPTIONS} goto hidden
    goto protocol
    """


def _pairs() -> str:
    """r6 a sum of what makes a pair, with numbers that only this program knows: none can be made to equal another."""
    sums = {name: "".join(_add(bytes_, at) for bytes_, at in parts) for name, parts in _SUMMED.items()}
    return f"""
    r6 = *(u64)(r10 + -16)
    r6 *= {_secret()}
    r1 = *(u16)(r8 + 12)
    if r1 == {socket.htons(0x86DD)} goto pair6
    r1 = r8
    r1 += 34
    if r1 > r9 goto short
    {sums["ipv4"]}
    goto summed
    pair6:
    r1 = r8
    r1 += 54
    if r1 > r9 goto short
    {sums["ipv6"]}
    summed:
    r1 = r6
    r1 >>= {64 - (PAIRS - 1).bit_length()}
    r1 <<= 3
    r1 += r7
    r2 = *(u64)(r1 + {_KNOWN})
    if r2 == r6 goto other
    *(u64)(r10 + -16) = r1
    {_rate("pairs", PAIRS_PER_SECOND, PAIRS_AT_ONCE)}
    r1 = *(u64)(r10 + -16)
    *(u64)(r1 + {_KNOWN}) = r6
    goto other
    short:
    {_rate("pairs", PAIRS_PER_SECOND, PAIRS_AT_ONCE, "short")}
    """


def _add(size: int, at: int) -> str:
    return f"""
    r1 = *(u{8 * size})(r8 + {at})
    r1 *= {_secret()}
    r6 += r1
    """


def _secret() -> int:
    """An odd number of 31 bits."""
    return secrets.randbits(31) | 1 << 30 | 1


def _udp(server: int) -> str:
    """r1 the UDP header of a first fragment."""
    return f"""
    r3 = r1
    r3 += 2
    if r3 > r9 goto hidden
    r3 = *(u16)(r1 + 0)
    if r3 == {socket.htons(server)} goto hidden
    goto protocol
    """


def _rate(name: str, per_second: int, at_once: int, where: str = "") -> str:
    """A clock that each frame sets on by its share of a second, and that may not run ahead of the time.

    It lags behind by no more than what may come at once. Two processors that read it at the same moment set it on once:
    a port of one queue has one.
    """
    cost, clock = _SECOND // per_second, _CLOCKS[name]
    return f"""
    call 5
    r1 = *(u64)(r7 + {clock})
    r2 = {cost}
    r2 *= {at_once}
    r3 = r0
    r3 -= r2
    if r1 >= r3 goto running_{name}{where}
    r1 = r3
    running_{name}{where}:
    if r1 > r0 goto {name}
    r1 += {cost}
    *(u64)(r7 + {clock}) = r1
    """


def _refuse(name: str) -> str:
    """A label that counts, and drops."""
    return f"""
    {name}:
    r1 = 1
    lock *(u64)(r7 + {_COUNTERS[name]}) += r1
    goto drop
    """
