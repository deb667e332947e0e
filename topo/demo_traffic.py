"""Steps of the demonstration: which packets arrive, how, and which do not."""

from __future__ import annotations

import socket
import statistics
from contextlib import ExitStack
from typing import Final

from flows.pipeline import BR_CTL, BR_NIC, Reason
from topo import netns
from topo.capture import Capture, send
from topo.demo_frames import Tunnelled, arp_request, echo_request, tunnelled
from topo.demo_look import (
    Place,
    carries_ping,
    dropped_since,
    drops,
    from_address,
    in_words,
    is_ping,
    mac_of,
    of_tenants,
    place,
    reported_drops,
    the_one,
    wire,
)
from topo.demo_show import Part, Step, hexdump, side_by_side
from topo.guest import PORT, Guest
from topo.host import OPENFLOW_PORT
from topo.lab import Lab
from topo.spec import CONTROL_IP, DATABASE_PORT, MGMT
from topo.waiting import wait_until

WEB, DB = "blue-web", "blue-db"
_GREEN_WEB, _GREEN_DB = "green-web", "green-db"
_WRONG_HOST: Final = "host-c"
_STRANGER: Final = "192.0.2.66"
_UNMAPPED: Final = "203.0.113.9"
_UNMAPPED_NEAR: Final = "10.0.0.99"
_MADE_UP_MAC: Final = "02:de:ad:be:ef:00"
_PATTERN: Final = b"Lockgate"
_TIMES: Final = 5
_LATER: Final = 20
_IMPATIENT: Final = 0.2
"""Seconds to wait for an answer that must not come; what decides is captured and counted."""


def _first_packet(lab: Lab, step: Step) -> None:
    web, db = lab.guest(WEB), lab.guest(DB)
    first = web.round_trips(db.ip, 1)
    step.equal("answers to the first ping there ever was", 1, len(first))
    later = web.round_trips(db.ip, _LATER)
    step.equal(f"answers to {_LATER} pings after it", _LATER, len(later))
    if first and later:
        step.figure("round trip of the first", first[0], "ms")
        step.figure("round trip of later ones, median", round(statistics.median(later), 3), "ms")


def _frames(lab: Lab, step: Step) -> None:
    web, db = lab.guest(WEB), lab.guest(DB)
    with (
        web.capture("out") as web_out,
        wire(lab, web.host) as from_web,
        db.capture("in") as db_in,
        wire(lab, db.host) as from_db,
    ):
        web.run(["ping", "-n", "-c", "1", "-W", "3", "-p", _PATTERN.hex(), db.ip])
    sent = the_one(web_out.frames, is_ping, "leaving the guest")
    outer = the_one(from_web.frames, carries_ping, "on the substrate")
    arrived = the_one(db_in.frames, is_ping, "at the other guest")
    there, back = place(lab, "blue", db.ip), place(lab, "blue", web.ip)
    tunnel = Tunnelled.read(outer)
    assert tunnel is not None  # noqa: S101 - it carries a ping
    step.show(side_by_side(sent, outer, arrived))
    step.say("on the substrate; the outer headers, which no guest sees, in yellow:")
    step.show(hexdump(outer, tunnel.inner_at))
    _compare(step, "", tunnel, back, there)
    step.check("on the substrate but for eth_dst", *_sameness(sent, tunnel.inner))
    step.check("at the other guest but for eth_dst", *_sameness(sent, arrived))
    step.equal("eth_dst that the other guest sees, as the mapping names it", there.mac, arrived[:6].hex(":"))

    answer = Tunnelled.read(the_one(from_db.frames, lambda frame: bool(of_tenants([frame])), "on its way back"))
    assert answer is not None  # noqa: S101 - it is a tenant's
    _compare(step, "the answer's ", answer, there, back)

    marker = b"to a MAC that the guest made up"
    with db.capture("in") as db_in:
        frame = echo_request(web.spec.mac, _MADE_UP_MAC, web.ip, db.ip, marker)
        web.send(frame)
        arrived = db_in.wait_for(lambda frame: marker in frame)
    step.check("a frame with a made-up eth_dst, but for that", *_sameness(frame, arrived))
    step.equal(f"its eth_dst, sent as {_MADE_UP_MAC}", there.mac, arrived[:6].hex(":"))


def _compare(step: Step, whose: str, seen: Tunnelled, source: Place, target: Place) -> None:
    step.equal(f"{whose}encapsulation, as the mapping names it", target.encap.value, seen.encap.value)
    step.equal(f"{whose}VNI, as the mapping names it", target.vni, seen.vni)
    wanted = f"{source.vtep} to {target.vtep}"
    step.equal(f"{whose}outer addresses, as the mapping names them", wanted, f"{seen.outer.src} to {seen.outer.dst}")


def _sameness(sent: bytes, seen: bytes) -> tuple[str, bool, str]:
    """What was seen, whether it will do, and what was expected."""
    differing = sum(a != b for a, b in zip(sent[6:], seen[6:], strict=False)) + abs(len(sent) - len(seen))
    return f"{differing} of {len(sent) - 6} bytes differ", differing == 0, f"0 of {len(sent) - 6} bytes differ"


def _two_vpcs(lab: Lab, step: Step) -> None:
    web, db = lab.guest(_GREEN_WEB), lab.guest(_GREEN_DB)
    blue = lab.guest(DB)
    step.equal("address of the guest in green, and in blue", blue.ip, db.ip)
    with blue.capture("in") as blue_in, db.capture("in") as green_in, wire(lab, web.host) as substrate:
        step.equal("pings answered in green", True, web.ping(db.ip, _TIMES))
    arrived = [frame for frame in green_in.frames if is_ping(frame)]
    step.equal("pings that reached green's guest", _TIMES, len(arrived))
    vnis = sorted({tunnel.vni for tunnel in of_tenants(substrate.frames)})
    step.equal("VNIs on the substrate meanwhile", [place(lab, "green", db.ip).vni], vnis)
    step.equal("frames that reached blue's guest", 0, len(blue_in.frames))


def _unmapped(lab: Lab, step: Step) -> None:
    web, db = lab.guest(WEB), lab.guest(DB)
    host = web.host
    before = drops(host)
    with wire(lab, host) as substrate:
        for _ in range(_TIMES):
            web.ping(_UNMAPPED, seconds=_IMPATIENT)
        marker = b"to an address of nobody"
        frame = echo_request(web.spec.mac, _MADE_UP_MAC, web.ip, _UNMAPPED_NEAR, marker)
        web.send(*[frame] * _TIMES, arp_request(web.spec.mac, web.ip, _UNMAPPED_NEAR))
        # What leaves now has left after whatever the above became.
        step.equal("a ping to a mapped address is answered", True, web.ping(db.ip))
    wanted = {Reason.NO_MAPPING.label: 2 * _TIMES, Reason.ARP_UNMAPPED.label: 1}
    what = f"dropped: {_TIMES} packets each to {_UNMAPPED} and {_UNMAPPED_NEAR}, an ARP request"
    step.equal(what, in_words(wanted), in_words(dropped_since(host, before, wanted)))
    after = drops(host)
    changes = (f"{label} {before.get(label, 0)} -> {after.get(label, 0)}" for label in wanted)
    step.say(f"counted by {host.name}, before -> after: {', '.join(changes)}")
    step.equal("tunnel packets on the substrate, that ping's only", 1, len(of_tenants(substrate.frames)))
    reason = Reason.NO_MAPPING.label
    try:
        wait_until(lambda: reported_drops(lab, host).get(reason) == after[reason], 10, "the report")
    finally:
        found = reported_drops(lab, host).get(reason, 0)
        step.equal(f"`lockgate status` on {host.name}: {reason}", after[reason], found)


def _forged(lab: Lab, step: Step) -> None:
    web, db = lab.guest(WEB), lab.guest(DB)
    true, wrong = place(lab, "blue", web.ip), lab.host(_WRONG_HOST).spec.vtep.partition("/")[0]
    target = place(lab, "blue", db.ip)
    rogue = f"{lab.prefix}rogue"
    netns.add(rogue)
    netns.ip(rogue, f"link add dev {PORT} type veth peer name rogue netns {lab.substrate}\nlink set dev {PORT} up")
    netns.ip(lab.substrate, "link set dev rogue master br0 up")
    own, vtep_mac = mac_of(rogue, PORT), mac_of(db.host.namespace, BR_NIC)

    def forge(source: str, marker: bytes) -> bytes:
        inner = echo_request(web.spec.mac, db.spec.mac, web.ip, db.ip, marker)
        return tunnelled((own, vtep_mac), (source, target.vtep), target.encap, target.vni, inner)

    before = drops(db.host)
    with db.capture("in") as db_in:
        for source, who, reason in (
            (wrong, f"{_WRONG_HOST}, where {web.ip} is not", Reason.SOURCE_NOT_MAPPED),
            (_STRANGER, "no host", Reason.UNKNOWN_VTEP),
        ):
            send(rogue, PORT, *[forge(source, b"forged")] * _TIMES)
            wanted = {reason.label: _TIMES}
            seen = dropped_since(db.host, before, wanted)
            step.equal(f"from {source} ({who}): {_TIMES} packets dropped", in_words(wanted), in_words(seen))
            before = drops(db.host)
        send(rogue, PORT, forge(true.vtep, b"control"))
        db_in.wait_for(lambda frame: b"control" in frame)
    forged = [frame for frame in db_in.frames if b"control" not in frame]
    step.equal("frames at the guest from any of those", 0, len(forged))
    step.equal(f"frames at the guest of one from {true.vtep}, where {web.ip} is", 1, len(db_in.frames) - len(forged))
    step.say(f"That last one shows that only the source was wrong with the others. Who may send as {true.vtep} on the")
    step.say("substrate is for the substrate to guard; no guest can, as the next step shows.")


def _control(lab: Lab, step: Step) -> None:
    web = lab.guest(WEB)
    host = web.host
    controls = [str(CONTROL_IP), *(each.spec.control.partition("/")[0] for each in lab.hosts.values())]
    vteps = [each.spec.vtep.partition("/")[0] for each in lab.hosts.values()]
    before = drops(host)
    with ExitStack() as stack:
        control_network = [
            stack.enter_context(each)
            for namespace, interface in (
                *((lab.control.namespace, f"h{each.spec.number}") for each in lab.hosts.values()),
                *((host.namespace, interface) for interface in (MGMT, BR_CTL)),
            )
            for each in (Capture(namespace, interface),)
        ]
        own_vtep = stack.enter_context(host.capture(BR_NIC))
        substrate = stack.enter_context(wire(lab, host))
        answered = [address for address in (*controls, *vteps) if web.ping(address, seconds=_IMPATIENT)]
        step.equal(f"of {len(controls)} control addresses and {len(vteps)} VTEPs, answered pings", [], answered)
        ports = (OPENFLOW_PORT, DATABASE_PORT)
        _knock(web, [(str(CONTROL_IP), port) for port in ports])
        control_mac = mac_of(lab.control.namespace, "br0")
        web.send(*_hostile(lab, web, control_mac, mac_of(host.namespace, BR_NIC)))
        wanted = {
            Reason.NO_MAPPING.label: len(controls) + len(vteps) + len(ports) + 2,
            Reason.SPOOFED_IP.label: 2,
            Reason.ARP_UNMAPPED.label: 1,
        }
        seen = dropped_since(host, before, wanted)
        step.equal(f"dropped by {host.name}: those, TCP {ports}, 5 raw frames", in_words(wanted), in_words(seen))
        # A capture that sees nothing at all would show nothing.
        wait_until(lambda: all(each.frames for each in control_network), 30, "frames on the control network")
    total = sum(len(each.frames) for each in control_network)
    leaked = sum(len(from_address(each.frames, web)) for each in control_network)
    step.equal(f"the guest's frames among the {total} on the control network", 0, leaked)
    step.equal("the guest's frames at its host's VTEP", 0, len(from_address(own_vtep.frames, web)))
    step.equal("tunnel packets of its on the substrate", 0, len(of_tenants(substrate.frames)))


def _knock(guest: Guest, targets: list[tuple[str, int]]) -> None:
    """Send one TCP SYN to each, from the guest's own socket, and wait for no answer."""
    with netns.entered(guest.namespace):
        for target in targets:
            with socket.socket() as knocker:
                knocker.setblocking(False)
                knocker.connect_ex(target)


def _hostile(lab: Lab, guest: Guest, control_mac: str, vtep_mac: str) -> list[bytes]:
    """Frames addressed straight to what a guest should not even know: control network, VTEP, another's VTEP."""
    own, host = guest.spec.mac, guest.host
    control, db = str(CONTROL_IP), lab.guest(DB)
    target = place(lab, "blue", db.ip)
    inner = echo_request(own, db.spec.mac, guest.ip, db.ip, b"wrapped by a guest")
    own_control, own_vtep = (address.partition("/")[0] for address in (host.spec.control, host.spec.vtep))
    return [
        echo_request(own, control_mac, guest.ip, control, b"to the control network"),
        echo_request(own, control_mac, own_control, control, b"as if from its host's control address"),
        tunnelled((own, vtep_mac), (guest.ip, target.vtep), target.encap, target.vni, inner),
        tunnelled((own, vtep_mac), (own_vtep, target.vtep), target.encap, target.vni, inner),
        arp_request(own, guest.ip, control),
    ]


PARTS: Final = (
    Part(
        "The first packet between two guests",
        "neither lost nor late, although no switch has sent a tunnel packet for a guest before",
        _first_packet,
    ),
    Part(
        "One frame, at the guest, on the substrate, at the other guest",
        "outer addresses, encapsulation and VNI as the mapping names them; the frame byte for byte, but for eth_dst",
        _frames,
    ),
    Part(
        "Another VPC with the same addresses",
        "its packets reach its own guest under its own VNI, and nothing of them the first VPC's",
        _two_vpcs,
    ),
    Part("A destination without a mapping", "rejected and counted by reason; nothing leaves for it", _unmapped),
    Part(
        "A neighbour on the substrate forges outer headers, with the right VNI",
        "rejected by where the mapping says that the inner source is, and counted; the guest sees none of it",
        _forged,
    ),
    Part(
        "A guest tries to reach the control network and the VTEPs",
        "no answer, no frame of it on any of those, and every try counted",
        _control,
    ),
)
