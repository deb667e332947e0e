"""What happens to a packet between two ports, across both hosts, from the flows that are installed there.

    sender's host:   br-guest -> br-nic -> tunnel port -> LOCAL -> br-nic -> uplink
    receiver's host: uplink -> br-nic -> LOCAL -> tunnel port -> br-nic -> br-guest

Each host's own Open vSwitch is asked what it would do (`ofproto/trace`): the sender's about the packet as the guest
sends it, the receiver's about the outer packet that comes in by its uplink, and then about what it takes out of it.
Nothing is sent. The wire between the hosts is taken to carry.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from explain.ofproto import Step
from explain.packet import Packet, outer
from explain.site import Bridge, Met, Switches
from explain.words import REASONS
from flows.fields import FAMILIES, TUN_ID
from flows.pipeline import BR_GUEST, BR_NIC, Reason
from flows.ports import LOCAL, TUNNEL, UPLINK
from mapping.model import Encap, Host, Port, Vpc

_OUTPUT: Final = re.compile(r'(?:output:)?"?([^"]+)"?')
_LOST: Final = re.compile(r"neighbor cache miss.*|native tunnel routing failed.*|.*Nonexistent output port.*")

Verdict = Literal["delivered", "answered", "dropped", "lost"]


@dataclass(frozen=True, slots=True)
class Trace:
    """The flows that the packet meets, in order, what becomes of it, and in words what that means and what to do."""

    met: tuple[Met, ...]
    verdict: Verdict
    reason: str
    """The label of the reason for which it is dropped; empty when it is not, or not by a flow of ours."""
    text: str
    mend: str


class _End(Exception):  # noqa: N818 - no error: how a packet ends
    def __init__(self, verdict: Verdict, text: str, reason: Reason | None = None) -> None:
        super().__init__(text)
        self.verdict: Verdict = verdict
        self.reason = reason


def trace(site: Switches, sender: Port, packet: Packet) -> Trace:
    """Follow a packet that `sender`, a port that is on a host, sends.

    Raises:
        UnreachableError: a host that it comes to could not be asked.
    """
    return _Journey(site, sender, packet).made()


class _Journey:
    def __init__(self, site: Switches, sender: Port, packet: Packet) -> None:
        self._site = site
        self._sender = sender
        self._packet = packet
        self._vpc: Vpc = site.snapshot.vpcs[sender.vpc]
        self._met: list[Met] = []

    def made(self) -> Trace:
        try:
            self._leave(self._site.snapshot.hosts[str(self._sender.host)])
        except _End as end:
            reason = end.reason.label if end.reason else ""
            return Trace(tuple(self._met), end.verdict, reason, str(end), self._mend(end))
        except (IndexError, ValueError) as error:
            text = f"lost: the last of these switches answers what makes no sense ({error})"
            return Trace(tuple(self._met), "lost", "", text, "look at that host: it may be in wrong hands")
        raise AssertionError("a packet without an end")

    def _leave(self, host: Host) -> None:
        """From the guest, at most into the tunnel."""
        device = self._site.bridge(host, BR_GUEST).ofports.get(self._sender.device)
        if device is None:
            raise _End(
                "lost",
                f"lost before it is sent: port {self._sender.name} has no interface {self._sender.device} on "
                f"{host.name} {BR_GUEST}: plug it in",
            )
        steps = self._ask(host, BR_GUEST, self._packet.at(in_port=device))
        found = self._tunnel(host, steps)
        if found is None:
            self._arrive(host, steps)
            return
        inside, outside, encap = found
        self._see_whether_dropped(host, inside[-1])
        self._packet = self._packet.after(inside)
        tunnel = _set_by(inside)
        target = tunnel.get("tun_dst") or tunnel.get("tun_ipv6_dst", "")
        peer = next((each for each in self._site.snapshot.hosts.values() if str(each.vtep_ip) == target), None)
        if peer is None:
            raise _End("lost", f"lost: {host.name} tunnels it to {target or 'nobody'}, which is no host's VTEP")
        if not outside:  # the kernel's datapath routes it, and it comes back by LOCAL
            outside = self._ask(host, BR_NIC, outer(host, peer, encap).at(in_port=LOCAL))
        self._must_go(host, outside, UPLINK)
        self._enter(host, peer, encap, int(tunnel.get(TUN_ID.name, "0"), 16))

    def _enter(self, source: Host, host: Host, encap: Encap, vni: int) -> None:
        """From the wire, out of the tunnel, to the guest."""
        steps = self._ask(host, BR_NIC, outer(source, host, encap).at(in_port=UPLINK))
        self._must_go(host, steps, LOCAL)
        family = FAMILIES[host.vtep_ip.version]
        where: dict[str, str | int] = {TUN_ID.name: vni, str(family.tun_src): str(source.vtep_ip)}
        where[str(family.tun_dst)] = str(host.vtep_ip)
        steps = self._ask(host, BR_NIC, self._packet.at(in_port=TUNNEL[encap], **where))
        self._arrive(host, steps)

    def _arrive(self, host: Host, steps: Sequence[Step]) -> None:
        """What does not go into a tunnel must end at a guest of this host."""
        last = steps[-1]
        self._see_whether_dropped(host, last)
        out = _outputs(last)
        if last.actions[-1].upper() == "IN_PORT":
            raise _End("answered", f"answered by {host.name} itself")
        if last.actions[-1].startswith("CONTROLLER"):
            raise _End("answered", f"handed to the controller by {host.name} to be answered, unless there are too many")
        ports = [each for each in self._site.snapshot.ports.values() if each.host == host.uuid]
        for port in ports:
            if last.bridge == BR_GUEST and port.device in out:
                raise _End("delivered", f"delivered to port {port.name} on {host.name}, by its interface {port.device}")
        raise _End("lost", f"lost: {host.name} {last.bridge} sends it out by {', '.join(out)}, where no port is")

    def _must_go(self, host: Host, steps: Sequence[Step], number: int) -> None:
        last = steps[-1]
        self._see_whether_dropped(host, last)
        bridge = self._site.bridge(host, BR_NIC)
        wanted = "LOCAL" if number == LOCAL else _name(bridge, number)
        if wanted not in _outputs(last):
            raise _End("lost", f"lost: {host.name} {BR_NIC} sends it out by {', '.join(_outputs(last))}, not {wanted}")

    def _see_whether_dropped(self, host: Host, last: Step) -> None:
        where = f"{host.name} {last.bridge} {last.table}"
        if lost := next((note for note in last.notes if _LOST.fullmatch(note)), ""):
            raise _End("lost", f"lost at {where}: {lost}")
        if last.reason is not None:
            reason = REASONS.get(last.reason)
            label = f"{reason.label}: {reason.meaning}" if reason else f"reason {last.reason:#x}, which is unknown here"
            raise _End("dropped", f"dropped at {where.removesuffix(' DROP')}, as {label}", reason)
        if last.actions[-1:] in ((), ("drop",)):
            raise _End("dropped", f"dropped at {where}, by no flow of ours")

    def _tunnel(self, host: Host, steps: Sequence[Step]) -> tuple[Sequence[Step], Sequence[Step], Encap] | None:
        """The flows up to the one that sends it out by a tunnel port, those that its outer packet meets, and which."""
        bridge = self._site.bridge(host, BR_NIC)
        names = {_name(bridge, number): encap for encap, number in TUNNEL.items()}
        for at, step in enumerate(steps, 1):
            for out in _outputs(step) if step.bridge == BR_NIC else ():
                if out in names:
                    return steps[:at], steps[at:], names[out]
        return None

    def _ask(self, host: Host, role: str, packet: str) -> list[Step]:
        steps = self._site.bridge(host, role).switch.trace(role, packet)
        self._met += [self._site.bridge(host, step.bridge).met(step) for step in steps]
        if not steps:
            raise _End("lost", f"lost: {host.name} {role} says nothing of it")
        return steps

    def _mend(self, end: _End) -> str:
        """What to do about it, as far as can be told."""
        if end.verdict in ("delivered", "answered"):
            return ""
        if end.reason is Reason.NO_MAPPING:
            return _why_unmapped(self._site, self._vpc, self._packet)
        hosts = list(dict.fromkeys(met.host for met in self._met)) or [
            self._site.snapshot.hosts[str(self._sender.host)].name
        ]
        if "neighbor cache miss" in str(end):
            return "the first packet asks the substrate for the way: try again; if it stays so, look at the uplinks"
        if not all(met.ours for met in self._met):
            options = " ".join(f"--host {host}" for host in hosts)
            return f"a flow in its way is not what the database says: look with `lockgate audit {options}`"
        return ""


def _why_unmapped(site: Switches, vpc: Vpc, packet: Packet) -> str:
    ip = packet.header.get("nw_dst") or packet.header["ipv6_dst"]
    found = (each for each in site.snapshot.mappings.values() if each.vpc == vpc.uuid and each.ip == ip)
    mapped = next(found, None)
    if mapped is None:
        return f"map it, with `lockgate mapping add {vpc.name} {ip} PORT`"
    port = site.snapshot.ports[mapped.port]
    if port.host is None:
        return f"its port {port.name} is on no host: `lockgate port move {port.name} --host HOST`"
    return f"the database maps it to port {port.name}, the flows do not, yet: look with `lockgate status`"


def _set_by(steps: Sequence[Step]) -> dict[str, str]:
    """What set_field has written, by field, in the bridge where the last of these flows is."""
    actions = [action for step in steps if step.bridge == steps[-1].bridge for action in step.actions]
    pairs = (action.removeprefix("set_field:").split("->") for action in actions if action.startswith("set_field:"))
    return {name: value for value, name in pairs}


def _outputs(step: Step) -> list[str]:
    """The ports that a flow sends it out by."""
    outs = (action for action in step.actions if action.startswith("output:") or action == "LOCAL")
    return [found[1] for action in outs if (found := _OUTPUT.fullmatch(action))]


def _name(bridge: Bridge, number: int) -> str:
    return next((name for name, ofport in bridge.ofports.items() if ofport == number), f"port {number}")
