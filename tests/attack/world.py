"""The lab that is attacked: everything that passes any of its places is captured, and every drop is counted."""

from __future__ import annotations

import contextlib
import json
import re
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, Self

from flows.pipeline import BR_CTL, BR_GUEST, BR_NIC, reasons
from tests.attack import background
from tests.attack.case import ATTACKED, ATTACKER, Case, Counted
from tests.attack.setting import CONTROL, CONTROL_OF, GUESTS, HOSTS, LOG, NEIGHBOUR, NEIGHBOUR_MAC, VAULT
from topo import bpf, netns, port_filter, uplink_filter
from topo.capture import Capture, Direction, send
from topo.demo_look import mac_of
from topo.guest import PORT, Guest
from topo.host import Host
from topo.lab import Lab
from topo.spec import MGMT, UPLINK
from topo.waiting import wait_until

_DROP: Final = re.compile(r"n_packets=(\d+),.*\breg1=(0x\w+)")
_COVERAGE: Final = re.compile(r"^(datapath_drop\w+) .*total: (\d+)", re.MULTILINE)
_TO_CONTROLLER: Final = "datapath_drop_userspace_action_error"
"""What Open vSwitch (3.1, `upcall_cb`) counts for each packet that it hands to the controller, and does not drop."""
_UNTAGGER: Final = "untagger"
"""An interface of the attacker: what it sends there, its kernel sends from its port, with the tags taken off."""
_CONNECTION: Final = (40010, 80)
"""Ports of log and of vault, between which there is a connection."""
_SINKS: Final = (68, 546, 4789, 6081)
"""UDP ports at which guests listen, or their kernels would answer what is sent there."""
_ETHERNET_IN_IPV6: Final = 143
_SUNK_PROTOCOLS: Final = (socket.IPPROTO_GRE, socket.IPPROTO_IPIP, socket.IPPROTO_IPV6, _ETHERNET_IN_IPV6)


@dataclass
class Place:
    """An interface of the lab, and what passes it anyhow."""

    capture: Capture
    is_background: Callable[[bytes], bool]
    taken: int = 0

    def take(self) -> list[bytes]:
        """What has passed since the last call."""
        frames = self.capture.frames
        fresh, self.taken = frames[self.taken :], len(frames)
        return fresh


@dataclass
class Counts:
    """Drops by host, bridge and reason; and other counters, by host and name."""

    drops: Counter[Counted] = field(default_factory=Counter)
    other: Counter[tuple[str, str]] = field(default_factory=Counter)

    def since(self, before: Counts) -> Counts:
        """What has been added."""
        return Counts(self.drops - before.drops, self.other - before.other)


class World:
    """A lab with a neighbour on its substrate. `places` is every interface on which a frame could show up."""

    def __init__(self, lab: Lab, stack: ExitStack) -> None:
        self.lab = lab
        self.neighbour = f"{lab.prefix}neighbour"
        self.places: dict[str, Place] = {}
        self.settled: Counts | None = None
        """What was counted when the last attack was over, if all that passed until then has been taken."""
        self._stack = stack

    @classmethod
    @contextlib.contextmanager
    def up(cls, name: str, file: Path) -> Iterator[Self]:
        """Build it; nothing of it stays."""
        with Lab(name) as lab, ExitStack() as stack:
            lab.up(file)
            world = cls(lab, stack)
            for host in lab.hosts.values():
                # As `lockgate bridges build` does. A lab's host has none: ahead of a veth it costs a third of the rate.
                uplink_filter.attach(host.namespace, UPLINK)
            world._add_neighbour()
            world._add_untagger()
            world._open_sinks()
            world._forget_fragments()
            world._connect()
            world._settle_kernels()
            world.ping_all()
            world._watch()
            yield world

    def ping_all(self) -> None:
        """Legitimate traffic goes on: and what was sent before it has got as far as it ever will."""
        for a, b in background.PINGS:
            self.ping(a, GUESTS[b].ip)
            self.ping(a, GUESTS[b].ipv6)

    def ping(self, name: str, address: str) -> None:
        """A guest pings another, and is answered."""
        pattern = background.LEGITIMATE.hex()
        said = self.lab.guest(name).run(["ping", "-n", "-c1", "-W5", "-p", pattern, address])
        assert " 1 received" in said, said

    def send(self, case: Case) -> None:
        """Send the frames of a case."""
        if case.sender == "neighbour":
            send(self.neighbour, PORT, *case.frames)
        elif case.sender == "cable":
            send(self.lab.substrate, f"h{self.lab.host(ATTACKED).spec.number}", *case.frames)
        elif case.tag_beside:
            send(self.lab.guest(ATTACKER).namespace, _UNTAGGER, *case.frames)
        elif case.mtu is None:
            self.lab.guest(ATTACKER).send(*case.frames)
        else:
            guest = self.lab.guest(ATTACKER)
            netns.ip(guest.namespace, f"link set dev {PORT} mtu {case.mtu}")
            for frame in case.frames:
                with contextlib.suppress(OSError):  # ENOBUFS: the other end of the cable has refused it
                    guest.send(frame)
            netns.ip(guest.namespace, f"link set dev {PORT} mtu {guest.spec.mtu}")

    def take(self) -> dict[str, list[bytes]]:
        """What has passed each place since the last call."""
        return {name: place.take() for name, place in self.places.items()}

    def counts(self) -> Counts:
        """What is counted now: once revalidators have looked, the flows say all that the datapath knows."""
        counts = Counts()
        with ThreadPoolExecutor() as pool:
            for drops, other in pool.map(self._counted_by, self.lab.hosts.values()):
                counts.drops |= drops
                counts.other |= other
        return counts

    def _counted_by(self, host: Host) -> tuple[Counter[Counted], Counter[tuple[str, str]]]:
        host.appctl("revalidator/wait")
        drops: Counter[Counted] = Counter()
        for bridge in (BR_GUEST, BR_NIC):
            known = {reason.number: reason for reason in reasons(bridge)}
            for packets, number in _DROP.findall(host.ofctl("dump-flows", bridge, "table=DROP")):
                drops[host.name, bridge, known[int(number, 16)]] += int(packets)
        return drops, Counter({(host.name, name): count for name, count in self._other(host)})

    def _other(self, host: Host) -> Iterator[tuple[str, int]]:
        for name, total in _COVERAGE.findall(host.appctl("coverage/show")):
            if name != _TO_CONTROLLER:
                yield name, int(total)
        devices = {guest.spec.device for guest in self.lab.guests.values() if guest.host is host}
        links = json.loads(host.run(["ip", "-s", "-j", "link", "show"]))
        for device in devices:
            for what, total in port_filter.refused(host.namespace, device).items():
                yield f"filter {device} {what}", total
        for reason, counted in uplink_filter.counted(bpf.attached(host.namespace)[UPLINK]).items():
            yield f"filter {UPLINK} {reason.label.removeprefix('filter_')}", counted.packets
        yield "rx_dropped", sum(link["stats64"]["rx"]["dropped"] for link in links if link["ifname"] in devices)

    def _add_neighbour(self) -> None:
        netns.add(self.neighbour)
        netns.ip(
            self.neighbour,
            f"link add dev {PORT} mtu 1500 address {NEIGHBOUR_MAC} type veth peer name neighbour mtu 1500"
            f" netns {self.lab.substrate}\naddr add {NEIGHBOUR}/24 dev {PORT}\nlink set dev {PORT} up",
        )
        # It may claim any MAC, and send to those that a Linux bridge keeps to itself (all but that of pause frames):
        # whatever a substrate does about that is the substrate's.
        netns.ip(
            self.lab.substrate,
            "link set dev neighbour master br0 up\n"
            "link set dev neighbour type bridge_slave learning off group_fwd_mask 0xfffd",
        )

    def _add_untagger(self) -> None:
        """What a kernel receives it takes the tag off, and forwards it so: that needs no kernel with VLANs."""
        namespace = self.lab.guest(ATTACKER).namespace
        netns.ip(
            namespace,
            f"link add dev {_UNTAGGER} type veth peer name tagged\nlink set dev {_UNTAGGER} up\nlink set dev tagged up",
        )
        rule = f'type filter hook ingress device "tagged" priority 0; fwd to "{PORT}"'
        netns.run(namespace, ["nft", f"table netdev tagged {{ chain forward {{ {rule}; }}; }}"])

    def _open_sinks(self) -> None:
        """Let guests' kernels swallow what cases deliver, instead of answering that nobody is there."""
        for guest in self.lab.guests.values():
            with netns.entered(guest.namespace):
                for port in _SINKS:
                    # Both families end there.
                    udp = self._stack.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
                    udp.bind(("", port))
                for family in (socket.AF_INET, socket.AF_INET6):
                    for proto in _SUNK_PROTOCOLS:
                        self._stack.enter_context(socket.socket(family, socket.SOCK_RAW, proto))

    def _connect(self) -> None:
        """Let log have a TCP connection to vault over either IP version, by which nothing is sent from now on."""
        client, server = _CONNECTION
        for family, own, other in ((socket.AF_INET, LOG.ip, VAULT.ip), (socket.AF_INET6, LOG.ipv6, VAULT.ipv6)):
            with netns.entered(self.lab.guest("vault").namespace):
                listener = self._stack.enter_context(socket.create_server((other, server), family=family))
            with netns.entered(self.lab.guest("log").namespace):
                caller = self._stack.enter_context(socket.socket(family))
            caller.bind((own, client))
            caller.settimeout(10)
            caller.connect((other, server))
            self._stack.enter_context(listener.accept()[0])

    def _forget_fragments(self) -> None:
        """Keep kernels from answering half a minute later, or a whole one, that the rest of a packet has not come."""
        nodes = [(host.namespace, "ipv4/ipfrag") for host in self.lab.hosts.values()]
        nodes += [(guest.namespace, "ipv6/ip6frag") for guest in self.lab.guests.values()]
        for namespace, what in nodes:
            with netns.entered(namespace):
                for name in ("low", "high"):
                    Path(f"/proc/sys/net/{what}_{name}_thresh").write_text("0")

    def _settle_kernels(self) -> None:
        """Wait until guests' kernels have looked for doubles, and take their IPv6 addresses for their own."""
        for guest in self.lab.guests.values():
            wait_until(partial(self._is_settled, guest), 10, f"{guest.name} to have looked for doubles")

    def _is_settled(self, guest: Guest) -> bool:
        shown = guest.run(["ip", "-6", "addr", "show", "dev", PORT])
        addresses = (f"inet6 {GUESTS[guest.name].ipv6}/64 ", f"inet6 {GUESTS[guest.name].link_local}/64 ")
        return all(address in shown for address in addresses) and "tentative" not in shown

    def _watch(self) -> None:
        lab = self.lab
        for name, guest in lab.guests.items():
            self._place(name, guest.namespace, PORT, "in", partial(background.at_guest, name))
            # What it sends is judged where it arrives, and by what is counted, to which its kernel may add.
            self._place(f"{name} out", guest.namespace, PORT, "out", lambda _: True)
        macs = {CONTROL: mac_of(lab.control.namespace, "br0")}
        macs |= {CONTROL_OF[name]: mac_of(host.namespace, BR_CTL) for name, host in lab.hosts.items()}
        for name, host in lab.hosts.items():
            assert host.spec.control.split("/")[0] == CONTROL_OF[name]
            assert mac_of(host.namespace, BR_NIC) == HOSTS[name].mac
            self._place(f"{name} uplink in", host.namespace, UPLINK, "in", background.on_substrate)
            self._place(f"{name} uplink out", host.namespace, UPLINK, "out", background.on_substrate)
            self._place(f"{name} VTEP", host.namespace, BR_NIC, "both", background.on_substrate)
            for what, interface in (("control", BR_CTL), ("mgmt", MGMT)):
                self._place(
                    f"{name} {what}", host.namespace, interface, "both", partial(background.on_control_network, macs)
                )
            # Nothing needs it to be up, so it is not; up, it shows what br-guest would send there.
            netns.ip(host.namespace, f"link set dev {BR_GUEST} up")
            self._place(f"{name} br-guest", host.namespace, BR_GUEST, "both", lambda _: False)
        on_control_network = partial(background.on_control_network, macs)
        self._place("control network", lab.control.namespace, "br0", "both", on_control_network)
        self._place("neighbour", self.neighbour, PORT, "in", background.on_substrate)

    def _place(
        self, name: str, namespace: str, interface: str, direction: Direction, is_background: Callable[[bytes], bool]
    ) -> None:
        capture = self._stack.enter_context(Capture(namespace, interface, direction))
        self.places[name] = Place(capture, is_background)
