"""What stands ahead of a host's uplink: a tunnel packet gets to Open vSwitch only with the header that a host writes.

Open vSwitch takes off what stands in a tunnel header besides the VNI, and no flow can match it: Geneve options, other
kinds of VXLAN, GRE checksums and sequence numbers. Worse, a Geneve option that is critical and unknown has it (3.1)
cache a drop that leaves the options out: from one such packet on, all of the VPC that comes from that host is lost, for
as long as more of it comes. So the first four bytes of the header, and its last, must be those that there are:

    Geneve    00 00 65 58 | VNI      | 00    RFC 8926, 3.4: no options, no flags, Ethernet inside
    VXLAN     08 00 00 00 | VNI      | 00    RFC 7348, 5
    GRE       20 00 65 58 | VNI            RFC 2784, RFC 2890: a key and nothing else, Ethernet inside

IPv6 extension headers end here as well, for no host writes any. Fragments, other addresses and all else of IP and ARP
that is no tunnel packet are for the flows of br-nic.

Of what is neither, Open vSwitch would make an entry for each ethertype (`topo.port_filter`). So it ends here too, but
for what bridges never forward (IEEE 802.1Q, 8.6.3: LLDP and LACP, which the host's own programs may need): that comes
from the other end of the cable alone.
"""

from __future__ import annotations

import socket
from typing import Final

from flows.filter_report import Counted
from flows.pipeline import UPLINK_FILTERED, Reason
from topo import bpf

_COUNTERS: Final = {reason: 16 * number for number, reason in enumerate(UPLINK_FILTERED)}
"""Where in the map's entry what is: frames that have ended here, and after them their bytes."""
_VALUES: Final = 2 * len(_COUNTERS)
_UDP, _GRE = 17, 47
_EXTENSIONS: Final = (0, 43, 44, 51, 60, 135, 139, 140)
"""RFC 7045."""
_VXLAN_PORT, _GENEVE_PORT = 4789, 6081
_WANTED: Final = {"vxlan": 0x08000000, "geneve": 0x00006558, "gre": 0x20006558}
_NEVER_FORWARDED: Final = 0x0180C2000000
_DROP, _PASS = 1, 2


def attach(namespace: str | None, interface: str) -> None:
    """Put the filter ahead of an uplink, in the place of any that is there; its counters begin anew.

    Raises:
        BpfError: the kernel does not take it.
    """
    bpf.attach(namespace, interface, program(), _VALUES, {})


def counted(program_id: int) -> dict[Reason, Counted]:
    """What has ended at a filter, by why: the reasons of `UPLINK_FILTERED`."""
    numbers = bpf.numbers(program_id, _VALUES)
    return {reason: Counted(numbers[at // 8], numbers[at // 8 + 1]) for reason, at in _COUNTERS.items()}


def program() -> str:
    """The filter, for `bpf.assemble`.

    r6 the frame's context, r7 counters, r8 where the frame begins, r9 where it ends, r1 the header after IP's.
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
    r2 = *(u16)(r8 + 12)
    if r2 == {socket.htons(0x0800)} goto ipv4
    if r2 == {socket.htons(0x86DD)} goto ipv6
    if r2 == {socket.htons(0x0806)} goto pass
    r2 = *(u32)(r8 + 0)
    if r2 != {socket.htonl(_NEVER_FORWARDED >> 16)} goto types
    r2 = *(u16)(r8 + 4)
    r2 &= {socket.htons(0xFFF0)}
    if r2 == {socket.htons(_NEVER_FORWARDED & 0xFFFF)} goto pass
    goto types
    ipv4:
    r1 += 20
    if r1 > r9 goto pass
    r2 = *(u16)(r8 + 20)
    if r2 & {socket.htons(0x1FFF)} goto pass
    r2 = *(u8)(r8 + 14)
    r2 &= 15
    r2 <<= 2
    r1 = r8
    r1 += r2
    r1 += 14
    r2 = *(u8)(r8 + 23)
    goto protocol
    ipv6:
    r1 = r8
    r1 += 54
    if r1 > r9 goto pass
    r2 = *(u8)(r8 + 20)
    {"".join(f"if r2 == {each} goto tunnels{chr(10)}" for each in _EXTENSIONS)}
    protocol:
    if r2 == {_GRE} goto gre
    if r2 != {_UDP} goto pass
    r2 = r1
    r2 += 8
    if r2 > r9 goto pass
    r2 = *(u16)(r1 + 2)
    r1 += 8
    if r2 == {socket.htons(_VXLAN_PORT)} goto vxlan
    if r2 == {socket.htons(_GENEVE_PORT)} goto geneve
    goto pass
    {"".join(_header(name) for name in ("vxlan", "geneve", "gre"))}
    types:
    r2 = {_COUNTERS[Reason.FILTER_UPLINK_TYPES]}
    goto refuse
    tunnels:
    r2 = {_COUNTERS[Reason.FILTER_TUNNELS]}
    refuse:
    r7 += r2
    r1 = 1
    lock *(u64)(r7 + 0) += r1
    r1 = r9
    r1 -= r8
    lock *(u64)(r7 + 8) += r1
    drop:
    r0 = {_DROP}
    exit
    pass:
    r0 = {_PASS}
    exit
    """


def _header(name: str) -> str:
    """GRE's has no reserved byte at its end."""
    last = "" if name == "gre" else "r2 = *(u8)(r1 + 7)\nif r2 != 0 goto tunnels"
    return f"""
    {name}:
    r2 = r1
    r2 += 8
    if r2 > r9 goto tunnels
    r2 = *(u32)(r1 + 0)
    if r2 != {socket.htonl(_WANTED[name])} goto tunnels
    {last}
    goto pass
    """
