"""An attack as a value: who sends which frames, and what has to become of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Literal

from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    IPv6,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from flows.pipeline import BR_GUEST, BR_NIC, Reason
from tests.attack.setting import GUESTS, HOSTS, ROUTER_MAC
from topo.demo_frames import Tunnelled
from topo.spec import UPLINK

_ND: Final = (ICMPv6ND_NS, ICMPv6ND_NA, ICMPv6ND_RS, ICMPv6ND_RA, ICMPv6ND_Redirect)
_EXPERIMENT: Final = 253
"""A type of option, RFC 4727, 5.1.3."""

Sender = Literal["guest", "neighbour", "cable"]
"""The cable to the attacked host carries what a Linux bridge, as the lab's substrate is one, refuses to forward."""
ATTACKER: Final = "web"
ATTACKED: Final = "host-b"

Counted = tuple[str, str, Reason]
"""Host, bridge, reason."""
Sight = tuple[str, Callable[[bytes], bool]]
"""A place, and by what a frame that has to be seen there is known."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of each frame of a case.

    `word` is what the table in docs/security.md calls it. `counted` are the drops that each frame adds, `noticed` the
    counters of Open vSwitch or of the kernel that it adds 1 to where no table sees it, `seen` where it is seen.
    """

    word: str
    counted: Sequence[Counted] = ()
    noticed: Sequence[tuple[str, str]] = ()
    seen: Callable[[bytes], list[Sight]] = field(default=lambda _: [])


@dataclass(frozen=True, slots=True)
class Case:
    """`limit` says that its fate is not what is wanted: neither flows nor Open vSwitch can tell it from what is."""

    name: str
    sender: Sender
    frames: Sequence[bytes]
    fate: Fate
    limit: bool = False
    mtu: int | None = None
    """What the sender sets the MTU of its interface to first."""
    tag_beside: bool = False
    """Whether the sender's kernel hands on tags beside frames, as of an interface of a VLAN, and not in them."""


def guest(
    name: str,
    fate: Fate,
    *frames: Packet | bytes,
    limit: bool = False,
    mtu: int | None = None,
    tag_beside: bool = False,
) -> Case:
    """What the malicious guest sends."""
    return Case(name, "guest", [_marked(name, frame) for frame in frames], fate, limit, mtu, tag_beside)


def neighbour(name: str, fate: Fate, *frames: Packet | bytes, limit: bool = False) -> Case:
    """What the malicious neighbour on the substrate sends."""
    return Case(name, "neighbour", [_marked(name, frame) for frame in frames], fate, limit)


def cable(name: str, fate: Fate, *frames: bytes) -> Case:
    """What whoever has the host's cable sends."""
    return Case(name, "cable", frames, fate)


def at_guest(reason: Reason) -> Fate:
    """Dropped by br-guest of the attacker's host."""
    return Fate(reason.label, [(GUESTS[ATTACKER].host, BR_GUEST, reason)])


def at_nic(reason: Reason) -> Fate:
    """Got past br-guest, and is dropped by br-nic of the attacker's host."""
    return Fate(reason.label, [(GUESTS[ATTACKER].host, BR_NIC, reason)])


def delivered(to: str) -> Fate:
    """Passes as any frame of the guest would: to one guest, byte for byte but for the MAC that it is sent to."""

    def seen(frame: bytes) -> list[Sight]:
        arrives = _mac(to) + frame[6:]
        sights: list[Sight] = [(to, arrives.__eq__)]
        here, there = GUESTS[ATTACKER].host, GUESTS[to].host
        if here != there:
            is_it = partial(_wraps, here, there, GUESTS[to].vni, arrives)
            sights += [(f"{here} uplink out", is_it), (f"{there} uplink in", is_it)]
        return sights

    return Fate("delivered", seen=seen)


def at_receiver(reason: Reason, to: str) -> Fate:
    """Gets as far as br-guest of another host, and is dropped there, before the guest that it is for."""

    def seen(frame: bytes) -> list[Sight]:
        return [sight for sight in delivered(to).seen(frame) if sight[0] != to]

    return Fate(reason.label, [(GUESTS[to].host, BR_GUEST, reason)], seen=seen)


def answered() -> Fate:
    """Answered on the spot, to the sender: the marker comes back."""
    return Fate("answered", seen=lambda frame: [(ATTACKER, lambda reply: reply[42:] == frame[42:])])


def told(is_it: Callable[[Packet], bool]) -> Fate:
    """Answered by the controller, to the sender: the router says this."""

    def answer(reply: bytes) -> bool:
        packet = Ether(reply)
        return bool(packet.src == ROUTER_MAC and is_it(packet))

    return Fate("answered", seen=lambda _: [(ATTACKER, answer)])


def ignored() -> Fate:
    """Reaches the controller, which answers nothing."""
    return Fate("ignored")


def advertised(target: str) -> Fate:
    """A solicitation of this guest, answered on the spot, to the sender."""

    def answer(frame: bytes) -> bytes:
        asked = Ether(frame)
        mac, options = GUESTS[target].mac, asked[ICMPv6ND_NS].payload.payload
        head = Ether(src=mac, dst=asked.src) / IPv6(src=GUESTS[target].ipv6, dst=asked[IPv6].src, hlim=asked[IPv6].hlim)
        message = ICMPv6ND_NA(tgt=GUESTS[target].ipv6, R=0, S=1, O=1) / ICMPv6NDOptDstLLAddr(lladdr=mac)
        return bytes(head / message / Raw(bytes(options)))

    return Fate("answered", seen=lambda frame: [(ATTACKER, answer(frame).__eq__)])


def from_wire(reason: Reason, *hosts: str) -> Fate:
    """Reaches the uplink of the hosts, and is dropped by br-nic."""
    hosts = hosts or (ATTACKED,)
    return Fate(reason.label, [(host, BR_NIC, reason) for host in hosts], seen=partial(_on_uplinks, hosts))


def before_guest(reason: Reason) -> Fate:
    """Reaches the uplink of the attacked host, gets past br-nic, and is dropped by br-guest."""
    return Fate(reason.label, [(ATTACKED, BR_GUEST, reason)], seen=partial(_on_uplinks, (ATTACKED,)))


def popped(to: str) -> Fate:
    """Reaches a guest as from its peer: `to` sees the inner frame."""

    def seen(frame: bytes) -> list[Sight]:
        tunnel = Tunnelled.read(frame)
        arrives = _mac(to) + (tunnel.inner[6:] if tunnel else b"")
        return [*_on_uplinks((GUESTS[to].host,), frame), (to, arrives.__eq__)]

    return Fate("delivered", seen=seen)


def filtered(what: str) -> Fate:
    """Ends at the filter ahead of the attacker's port, which counts it so: `flows.pipeline.FILTERED`."""
    return Fate(what, noticed=[(GUESTS[ATTACKER].host, f"filter {ATTACKER} {what}")])


def filtered_at(what: str, host: str = ATTACKED) -> Fate:
    """Ends at the filter ahead of a host's uplink, before any capture there, which counts it so."""
    return Fate(what, noticed=[(host, f"filter {UPLINK} {what}")])


def too_long() -> Fate:
    """Dropped by the kernel before Open vSwitch, at the host's end of the guest's cable."""
    return Fate("rx_dropped", noticed=[(GUESTS[ATTACKER].host, "rx_dropped")])


def _marked(name: str, frame: Packet | bytes) -> bytes:
    """Frames that are given as bytes stay as they are."""
    if isinstance(frame, bytes):
        return frame
    text = marker(name)
    if any(layer in frame for layer in _ND):
        # All that follows is read as options, of so many times 8 bytes.
        words = (2 + len(text) + 7) // 8
        text = bytes([_EXPERIMENT, words]) + text.rjust(words * 8 - 2)
    return bytes(frame / Raw(text))


def marker(name: str) -> bytes:
    """What every frame of a case ends with."""
    return f" attack: {name}.".encode()


def _mac(guest_name: str) -> bytes:
    return bytes.fromhex(GUESTS[guest_name].mac.replace(":", ""))


def _on_uplinks(hosts: Sequence[str], frame: bytes) -> list[Sight]:
    return [(f"{host} uplink in", frame.__eq__) for host in hosts]


def _wraps(source: str, target: str, vni: int, arrives: bytes, frame: bytes) -> bool:
    """Whether a frame is what host `source` has to send to host `target` for an inner frame."""
    tunnel, here, there = Tunnelled.read(frame), HOSTS[source], HOSTS[target]
    return (
        tunnel is not None
        and (tunnel.outer.eth_src, tunnel.outer.eth_dst) == (here.mac, there.mac)
        and (str(tunnel.outer.src), str(tunnel.outer.dst)) == (here.vtep, there.vtep)
        and (tunnel.encap, tunnel.vni, tunnel.inner) == (there.encap, vni, arrives)
    )
