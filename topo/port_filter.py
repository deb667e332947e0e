"""What stands ahead of a guest's port, on the operator's side of it: no frame reaches Open vSwitch but through it.

Open vSwitch keeps a cached flow for each value of whatever it looks at, and in its userspace datapath reads each frame
before it can refuse it. What a guest may vary without limit, or must not send without limit, is therefore met here:

- *Other types* than ARP, IPv4 and IPv6 end here: Open vSwitch always looks at the ethertype whole. A tag that the
  kernel has taken off stands beside the frame, and is Open vSwitch's to refuse.
- *The destination MAC*, which decides nothing, is overwritten: all of neighbour discovery with a multicast one, all
  else with that of all.
- *ARP and neighbour discovery* have a rate: they are answered packet by packet, with a cached flow for each target.
- *IP protocols* but the four that all guests use have a rate at which new ones may come, because Open vSwitch looks at
  the number whole.
- *Conversations* have a rate at which new ones may come: frames that are alike in MACs, addresses, protocol, ports,
  DSCP, hops and flow label. A guest has many, but a flood of random headers is met here rather than in Open vSwitch,
  which looks for each that it does not know under one mask after another.
- *All frames* have a rate.
- *DHCP servers* end here, by the port that they send from and by the one that clients listen at.
- *What hides in fragments* ends here: neighbour discovery (RFC 6980), a DHCP server, headers after a fragment header;
  Open vSwitch shows neither ports nor types of any fragment.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Mapping as MappingABC
from typing import Final

from flows.filter_report import Counted
from flows.pipeline import FILTERED, Reason
from topo import bpf

NEIGHBOURS_PER_SECOND: Final = 20
"""Open vSwitch forgets a flow that nothing has used for 10 s: times these, it is what a guest can have it learn."""
NEIGHBOURS_AT_ONCE: Final = 80
PROTOCOLS_PER_SECOND: Final = 1
PROTOCOLS_AT_ONCE: Final = 16
PROTOCOL_SECONDS: Final = 10
"""For so long after it was let on a protocol is no new one: who uses many all the time has no more than that."""
CONVERSATIONS_PER_SECOND: Final = 2000
CONVERSATIONS_AT_ONCE: Final = 4000
CONVERSATIONS: Final = 1 << 16
"""So many, or fewer where three fall together, are known at a time: half a megabyte for each port."""
FRAMES_PER_SECOND: Final = 100_000
FRAMES_AT_ONCE: Final = 10_000
"""Unless the port has a limit of its own."""


def _name(reason: Reason) -> str:
    return reason.label.removeprefix("filter_")


_CLOCKS: Final = {"neighbours": 0, "protocols": 8, "conversations": 16, "frames": 24}
_COST, _DEPTH = 32, 40
"""What a frame takes of the clock of all frames, and how far that may lag behind: both in ns."""
_COUNTERS: Final = {_name(reason): 48 + 16 * number for number, reason in enumerate(FILTERED)}
"""Frames, and after them bytes."""
_SEEN: Final = 48 + 16 * len(FILTERED)
"""Where in the map's entry what is: of each protocol, at _SEEN, when it was let on."""
_KNOWN: Final = _SEEN + 8 * 256
"""After these: of each conversation that is known, a sum that tells it from others."""
_VALUES: Final = _KNOWN // 8 + CONVERSATIONS
_ECN, _ECN6 = 0x03, socket.htonl(0x00300000)
_SUMMED: Final = {
    "ipv4": ((8, 0, 0), (4, 8, 0), (1, 15, _ECN), (1, 22, 0), (4, 26, 0), (4, 30, 0)),
    "ipv6": ((8, 0, 0), (4, 8, 0), (4, 14, _ECN6), (1, 21, 0), *((8, at, 0) for at in range(22, 54, 8))),
}
"""What makes a conversation besides protocol and ports: how many bytes, where they are in the frame, which bits not.

All of it but what one sender varies as it goes on, which are lengths, sums, numbers of fragments and ECN (RFC 3168)."""
_SECOND: Final = 1_000_000_000
_TOGETHER: Final = {"neighbours": 1, "protocols": 1, "conversations": 64, "frames": 16}
"""So many of a flood's frames pass in a row, and then none for as long as their rate says: one at a time would have
Open vSwitch wake up for each, which takes it longer than the frame does."""
_HEADERS: Final = 6
"""IPv6 headers that are looked past."""
_HOP_BY_HOP, _TCP, _UDP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _ICMPV6, _OPTIONS, _SCTP = (
    0,
    6,
    17,
    43,
    44,
    51,
    58,
    60,
    132,
)
_ALWAYS_KNOWN: Final = (1, _TCP, _UDP, _ICMPV6)
"""With ICMP. All others have a rate, so that who floods with them keeps these."""
_DHCP, _DHCPV6 = (67, 68), (547, 546)
"""The ports of servers and of clients: RFC 2131, 4.1; RFC 8415, 7.2."""
_LINK_FIRST, _LINK_LAST, _MLD2 = 130, 137, 143
_DEEPEST: Final = 1500
"""Bytes of a frame within which ports are looked for."""
_DROP, _PASS = 1, 2


class Filter:
    """One that is ahead of a port: what it has counted, and the port's own limit."""

    def __init__(self, program_id: int) -> None:
        self._numbers = bpf.numbers(program_id, _VALUES)

    @property
    def counted(self) -> MappingABC[Reason, Counted]:
        """The frames that have ended here, and their bytes as far as the first buffer of each holds them."""
        numbers = self._numbers
        at = {reason: _COUNTERS[_name(reason)] // 8 for reason in FILTERED}
        return {reason: Counted(numbers[index], numbers[index + 1]) for reason, index in at.items()}

    def limit(self, frames_per_second: int, at_once: int) -> None:
        """Let through no more of all frames than this."""
        for index, number in _limits(frames_per_second, at_once).items():
            self._numbers[index] = number


def attach(namespace: str | None, interface: str) -> None:
    """Put the filter ahead of a port, in the place of any that is there; its counters begin anew.

    The interface is in the network namespace of this name; None: in that of this process.

    Raises:
        BpfError: the kernel does not take it. The port must then not be plugged.
    """
    bpf.attach(namespace, interface, program(), _VALUES, _limits(FRAMES_PER_SECOND, FRAMES_AT_ONCE))


def refused(namespace: str, interface: str) -> dict[str, int]:
    """How many frames of the port have ended here, by why: the reasons of `FILTERED`, without their "filter_"."""
    program_id = bpf.attached(namespace).get(interface)
    counted = Filter(program_id).counted if program_id else {}
    return {_name(reason): count.packets for reason, count in counted.items()}


def _limits(frames_per_second: int, at_once: int) -> dict[int, int]:
    cost = _SECOND // frames_per_second
    return {_COST // 8: cost, _DEPTH // 8: cost * at_once}


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
    whole:
    r3 = r1
    r3 -= r8
    goto met
    protocol:
    r3 = -1
    met:
    *(u64)(r10 + -24) = r3
    *(u64)(r10 + -16) = r2
    {"".join(f"if r2 == {each} goto known{chr(10)}" for each in _ALWAYS_KNOWN)}
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
    *(u64)(r6 + {_SEEN}) = r0
    known:
    {_conversations()}
    other:
    r1 = -1
    *(u32)(r8 + 0) = r1
    *(u16)(r8 + 4) = r1
    any:
    {_own_rate()}
    r0 = {_PASS}
    exit
    {"".join(_refuse(name) for name in _COUNTERS)}
    drop:
    r0 = {_DROP}
    exit
    """


def _ipv4() -> str:
    """Too short for addresses: Open vSwitch refuses it."""
    return f"""
    ipv4:
    r1 = r8
    r1 += 34
    if r1 > r9 goto short
    r2 = *(u8)(r8 + 23)
    r3 = *(u16)(r8 + 20)
    if r3 & {socket.htons(0x1FFF)} goto protocol
    r4 = *(u8)(r8 + 14)
    r4 &= 15
    r4 <<= 2
    r1 = r8
    r1 += r4
    r1 += 14
    if r2 != {_UDP} goto checked
    {_no_dhcp(_DHCP)}
    r3 = *(u16)(r8 + 20)
    checked:
    if r3 & {socket.htons(0x2000)} goto protocol
    goto whole
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
    if r2 != {_UDP} goto checked6
    {_no_dhcp(_DHCPV6)}
    checked6:
    if r5 == 0 goto whole
    goto protocol
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


def _conversations() -> str:
    """r6 a sum of what makes one, with numbers that only this program knows: none can be made to equal another.

    Ports are part of it where the packet is whole. Each has two places where it may be known.
    """
    sums = {name: "".join(_add(*part) for part in parts) for name, parts in _SUMMED.items()}
    places = (CONVERSATIONS - 1).bit_length()
    return f"""
    r6 = *(u64)(r10 + -16)
    r6 *= {_secret()}
    r1 = *(u16)(r8 + 12)
    if r1 == {socket.htons(0x86DD)} goto addresses6
    r1 = r8
    r1 += 34
    if r1 > r9 goto short
    {sums["ipv4"]}
    goto addressed
    addresses6:
    r1 = r8
    r1 += 54
    if r1 > r9 goto short
    {sums["ipv6"]}
    addressed:
    r3 = *(u64)(r10 + -24)
    if r3 > {_DEEPEST} goto summed
    r2 = *(u64)(r10 + -16)
    if r2 == {_TCP} goto ports
    if r2 == {_UDP} goto ports
    if r2 != {_SCTP} goto summed
    ports:
    r1 = r8
    r1 += r3
    r2 = r1
    r2 += 4
    if r2 > r9 goto summed
    r1 = *(u32)(r1 + 0)
    r1 *= {_secret()}
    r6 += r1
    summed:
    r1 = r6
    r1 >>= {64 - places}
    r1 <<= 3
    r1 += r7
    r2 = *(u64)(r1 + {_KNOWN})
    if r2 == r6 goto other
    *(u64)(r10 + -16) = r1
    r1 = r6
    r1 >>= {64 - 2 * places}
    r1 &= {CONVERSATIONS - 1}
    r1 <<= 3
    r1 += r7
    r2 = *(u64)(r1 + {_KNOWN})
    if r2 == r6 goto other
    *(u64)(r10 + -24) = r1
    {_rate("conversations", CONVERSATIONS_PER_SECOND, CONVERSATIONS_AT_ONCE)}
    r1 = *(u64)(r10 + -16)
    r2 = *(u64)(r1 + {_KNOWN})
    if r2 == 0 goto place
    if r0 & 1024 goto place
    r1 = *(u64)(r10 + -24)
    place:
    *(u64)(r1 + {_KNOWN}) = r6
    goto other
    short:
    {_rate("conversations", CONVERSATIONS_PER_SECOND, CONVERSATIONS_AT_ONCE, "short")}
    """


def _add(size: int, at: int, ignored: int) -> str:
    return f"""
    r1 = *(u{8 * size})(r8 + {at})
    r1 &= {~ignored}
    r1 *= {_secret()}
    r6 += r1
    """


def _secret() -> int:
    """An odd number of 31 bits."""
    return secrets.randbits(31) | 1 << 30 | 1


def _no_dhcp(ports: tuple[int, int]) -> str:
    """r1 the UDP header, which is whole or begins a first fragment. One that does not show its ports hides them."""
    server, client = map(socket.htons, ports)
    return f"""
    r3 = r1
    r3 += 4
    if r3 > r9 goto hidden
    r3 = *(u16)(r1 + 0)
    if r3 == {server} goto dhcp
    r3 = *(u16)(r1 + 2)
    if r3 == {client} goto dhcp
    """


def _rate(name: str, per_second: int, at_once: int, where: str = "") -> str:
    """A clock that each frame sets on by its share of a second, and that may not run ahead of the time.

    It lags behind by no more than what may come at once. Two processors that read it at the same moment set it on once:
    a port of one queue has one.
    """
    return _clock(name, f"r4 = {_SECOND // per_second}", f"r2 = r4\nr2 *= {at_once}", where)


def _own_rate() -> str:
    """The same, with a share that is the port's own."""
    return _clock("frames", f"r4 = *(u64)(r7 + {_COST})", f"r2 = *(u64)(r7 + {_DEPTH})")


def _clock(name: str, cost: str, depth: str, where: str = "") -> str:
    """The time that counts goes on by steps of some shares: by so many more may the clock lag behind it."""
    return f"""
    call 5
    {cost}
    {depth}
    r5 = r4
    r5 *= {_TOGETHER[name]}
    r2 += r5
    r1 = *(u64)(r7 + {_CLOCKS[name]})
    r3 = r0
    r3 -= r2
    if r1 >= r3 goto running_{name}{where}
    r1 = r3
    running_{name}{where}:
    r2 = r0
    r2 %= r5
    r3 = r0
    r3 -= r2
    if r1 > r3 goto {name}
    r1 += r4
    *(u64)(r7 + {_CLOCKS[name]}) = r1
    """


def _refuse(name: str) -> str:
    """A label that counts, and drops."""
    return f"""
    {name}:
    r1 = 1
    lock *(u64)(r7 + {_COUNTERS[name]}) += r1
    r1 = r9
    r1 -= r8
    lock *(u64)(r7 + {_COUNTERS[name] + 8}) += r1
    goto drop
    """
