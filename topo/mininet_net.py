"""A Mininet network that is a Lockgate lab: made, programmed, pinged, and removed without a trace.

It is an ordinary Mininet object, and does what Mininet's own does, but for this:

- It leaves the machine's own namespace, Open vSwitch and controllers alone, whatever switch or controller is asked for.
- `start` returns when Lockgate has programmed every host.
- `pingAll` knows VPCs: within each, nothing may be lost; across, nothing may arrive.
- When it fails, is interrupted, or ends, everything of it goes. Mininet's own `mn -c` is not needed for that, and not
  used: it kills every ping and ryu-manager of the machine, and deletes the bridges of the machine's own Open vSwitch.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from mininet.log import info, output
from mininet.net import Mininet
from mininet.node import Node

from topo import netns, removal
from topo.mininet_control import ControlProcess
from topo.mininet_nodes import BareMetalHost, GuestNode, SubstrateSwitch
from topo.mininet_topo import LabTopo
from topo.spec import LabError

LOSSY_TRIES: Final = 12
MEASURED: Final = 300
_MARK: Final = "mininet.pid"
"""A file that tells a lab of Mininet's from others: the process that it is of."""
_alive: list[LabNet] = []
_made = 0


class LabNet(Mininet):
    """`LabNet(BareMetal(hosts=3, guests=2))`, as a context manager or with `start` and `stop`. It needs root.

    Namespaces are named lg-NAME-*, and what runs keeps its files in /run/lockgate/NAME, where NAME is mn and the
    number of this process.
    """

    def __init__(self, topo: LabTopo, **options: Any) -> None:
        global _made  # noqa: PLW0603  # several may be made by one process, one after another or side by side
        if os.geteuid():
            raise LabError("a lab needs root: sudo")
        if not isinstance(topo, LabTopo):
            raise LabError(f"{type(topo).__name__} is none of Lockgate's topologies")
        remove_abandoned()
        self.name = f"mn{os.getpid()}" + (f"n{_made}" if _made else "")
        _made += 1
        self.plan = topo.plan
        self.services = ControlProcess(self.name)
        mark = removal.FOLDER / self.name / _MARK
        try:
            mark.parent.mkdir(mode=0o700, parents=True)
        except FileExistsError:
            raise LabError(f"there is a lab {self.name}: lockgate lab down -n {self.name}") from None
        # Mininet would raise limits of the whole machine (sysctl), and nobody would set them back. A lab needs none.
        Mininet.inited = True
        _alive.append(self)
        # What nodes and their addresses are is the topology's to say, and who controls them is Lockgate's.
        ours: dict[str, bool | None] = dict.fromkeys(
            ("waitConnected", "inNamespace", "autoSetMacs", "autoStaticArp", "autoPinCpus"), False
        )
        ours |= {"controller": None, "listenPort": None}
        with self._removed_on_failure():
            mark.write_text(f"{os.getpid()}\n")
            super().__init__(topo, **options | ours)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def bare_metal(self) -> list[BareMetalHost]:
        """The hosts. Mininet's `hosts` are the guests: what it pings."""
        return [node for node in self.switches if isinstance(node, BareMetalHost)]

    def addHost(self, name: str, cls: type[Node] | None = None, **params: Any) -> Node:
        """Add a guest to this lab."""
        return super().addHost(name, cls or GuestNode, **params | {"lab": self.name})

    def addSwitch(self, name: str, cls: type[Node] | None = None, **params: Any) -> Node:
        """Add a host or a network to this lab."""
        return super().addSwitch(name, cls or SubstrateSwitch, **params | {"lab": self.name})

    def addNAT(self, *_args: Any, **_params: Any) -> None:
        """Refuse to join the lab to the machine's network, and so guests to what they are kept from."""
        raise LabError("a lab has no NAT: its guests reach their VPC, and nothing else")

    def start(self) -> None:
        """Start the switches and the mapping database, plug the guests, and have the hosts programmed."""
        with self._removed_on_failure():
            super().start()
            # Before the controller has hosts ask for each other: what finds no way then waits for the next time.
            for switch in self.switches:
                if isinstance(switch, SubstrateSwitch):
                    switch.converge()
            info("*** Plugging guests\n")
            for guest in self.hosts:
                info(f"{guest} ")
                guest.plug(self[guest.spec.host])
            info("\n*** Waiting for ryu-manager to program every host\n")
            self.services.start_controller()

    def stop(self) -> None:
        """Stop, and remove every trace."""
        if self not in _alive:
            return
        with removal.undisturbed():
            try:
                super().stop()
            finally:
                self.remove()

    def remove(self) -> None:
        """Remove every trace, in whatever state it is."""
        with removal.undisturbed():
            for node in [*self.hosts, *self.switches]:
                with contextlib.suppress(OSError):  # its shell has ended
                    node.terminate()
            removal.remove(self.name)
            if self in _alive:
                _alive.remove(self)

    def waitConnected(self, timeout: float | None = None, delay: float = 0) -> bool:  # noqa: ARG002
        """Wait until every host's switches hold what the mapping database says."""
        self.services.wait_applied()
        return True

    def move(self, port: str, host: str) -> None:
        """Replug a guest at another host, tell the mapping database, and wait until every host knows.

        Raises:
            LabError: there is no such guest or host.
        """
        guest, target = self._named(port, GuestNode), self._named(host, BareMetalHost)
        device = guest.spec.device
        source = self[guest.guest.host.name]
        if source is not target:
            guest.guest.move(target.host)
            # As Mininet sees it the cable stays, and its end changes hands.
            intf = source.nameToIntf[device]
            source.delIntf(intf)
            intf.node = target
            target.addIntf(intf, moveIntfFn=lambda *_: None)
        self.services.lockgate("port", "move", port, "--host", host)
        self.services.wait_applied()

    def pingAll(self, timeout: float | None = None) -> float:
        """Ping between all guests of each VPC, and then across VPCs. Prints what was lost of each, as Mininet does.

        Across VPCs guests ping addresses that only the other VPC has: the others all VPCs share. That nothing strays
        shows in what the guests themselves have received, too. Returns percent lost within VPCs, at worst.
        """
        output("*** Ping: testing ping reachability\n")
        vpcs = {vpc: [guest for guest in self.hosts if guest.spec.vpc == vpc] for vpc in self.plan.subnets}
        if self.plan.loss:
            output(f"*** Each cable loses {self.plan.loss:g}% each way: a pair has {LOSSY_TRIES} tries\n")
        # What a lossy substrate has lost is not waited for as long.
        seconds = timeout or (1 if self.plan.loss else 2)
        lost = [self._ping_within(vpc, guests, seconds) for vpc, guests in vpcs.items()]
        if len(vpcs) > 1:
            self._ping_across(timeout or 1)
        if self.plan.loss:
            self.measure_loss()
        return max(lost)

    def ping(self, hosts: list[GuestNode] | None = None, timeout: float | None = None) -> float:
        """Ping between these guests, or as `pingAll`. Returns percent lost."""
        if not hosts:
            return self.pingAll(timeout)
        return self._ping(hosts, lambda _: hosts, GuestNode.IP, timeout or 2)

    def measure_loss(self) -> float:
        """Send many pings between two guests on different hosts, and print how many were lost. Returns percent."""
        one = self.hosts[0]
        other = next((g for g in self.hosts if g.guest.host is not one.guest.host and g.spec.vpc == one.spec.vpc), one)
        hosts = one.guest.host.name, other.guest.host.name
        said = one.cmd(f"ping -n -q -c{MEASURED} -i0.01 -W1 {other.IP()}")
        sent, received = self._parsePing(said)
        lost = float(100 * (sent - received) / sent)
        expected = self.plan.expected_loss(*hosts)
        output(f"*** {one} -> {other}: {lost:.1f}% of {sent} pings lost; {expected:.1f}% expected\n")
        return lost

    def iperf(  # noqa: PLR0913, PLR0917  # Mininet's own signature
        self,
        hosts: list[GuestNode] | None = None,
        l4Type: str = "TCP",
        udpBw: str = "10M",
        fmt: str | None = None,
        seconds: int = 5,
        port: int = 5201,
    ) -> list[str]:
        """Measure throughput from one guest to another: by default from the first to the last.

        By iperf3: Mininet's own kills every iperf of the machine, and waits forever for what Debian's does not print.
        """
        client, server = hosts or (self.hosts[0], self.hosts[-1])
        output(f"*** Iperf: testing {l4Type} bandwidth between {client} and {server}\n")
        format_, protocol = f"-f {fmt or 'm'}", f"-u -b {udpBw}" if l4Type == "UDP" else ""
        serving = server.popen(f"iperf3 -s -1 --forceflush -p {port}", text=True)
        try:
            next(line for line in serving.stdout if "listening" in line)
            said = client.cmd(f"iperf3 {format_} {protocol} -t {seconds} -p {port} -c {server.IP()}")
        finally:
            serving.kill()
            serving.communicate()
        results = re.findall(r"([\d.]+ \S+/sec).*(?:sender|receiver)", said)
        output(f"*** Results: {results}\n" if results else f"*** Error: {said}\n")
        return results

    def _ping_within(self, vpc: str, guests: list[GuestNode], timeout: float) -> float:
        """At the address that a guest has in each of the VPC's subnets. Returns percent lost at worst."""
        others = [guest for guest in self.hosts if guest.spec.vpc != vpc]
        lost = []
        for number, subnet in enumerate(self.plan.subnets[vpc]):
            if others:
                output(f"*** Within {vpc}, {subnet}\n")
            before = sum(guest.frames() for guest in others)
            lost.append(self._ping(guests, lambda _: guests, lambda guest: guest.address(number), timeout))  # noqa: B023
            if others:
                strayed = sum(guest.frames() for guest in others) - before
                output(f"*** Frames that guests of other VPCs received meanwhile: {strayed}\n")
        return max(lost)

    def _ping_across(self, timeout: float) -> None:
        output("*** Across VPCs, to addresses that only the other VPC has\n")
        before = sum(guest.echoes() for guest in self.hosts)
        others = {guest: [other for other in self.hosts if other.spec.vpc != guest.spec.vpc] for guest in self.hosts}
        self._ping(self.hosts, lambda guest: others[guest], lambda guest: guest.address(-1), timeout)
        strayed = sum(guest.echoes() for guest in self.hosts) - before
        output(f"*** Pings that any guest received meanwhile: {strayed}\n")

    def _ping(
        self,
        guests: Iterable[GuestNode],
        targets: Callable[[GuestNode], Iterable[GuestNode]],
        address: Callable[[GuestNode], str],
        timeout: float,
    ) -> float:
        """Mininet's `ping`, to chosen targets at chosen addresses. Returns percent lost."""
        sent = received = 0
        for guest in guests:
            output(f"{guest} -> ")
            for target in targets(guest):
                if target is guest:
                    continue
                sent += 1
                tries = LOSSY_TRIES if self.plan.loss else 1
                answered = any(self._answers(guest, address(target), timeout) for _ in range(tries))
                received += answered
                output(f"{target} " if answered else "X ")
            output("\n")
        if not sent:
            output("*** Warning: No packets sent\n")
            return 0
        lost = 100 * (sent - received) / sent
        # Mininet cuts off what follows the point: a loss of 0.4 % would look like none.
        output(f"*** Results: {lost:.3g}% dropped ({received}/{sent} received)\n")
        return lost

    def _answers(self, guest: GuestNode, address: str, timeout: float) -> bool:
        return bool(self._parsePing(guest.cmd(f"ping -n -c1 -W{timeout:g} {address}"))[1])

    def _named(self, name: str, kind: type[Node]) -> Any:
        if name not in self or not isinstance(self[name], kind):
            there = " ".join(node for node in self if isinstance(self[node], kind))
            raise LabError(f"no {'guest' if kind is GuestNode else 'host'} {name}; there are: {there}")
        return self[name]

    @contextlib.contextmanager
    def _removed_on_failure(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            info("\n*** Removing what was made\n")
            self.remove()
            raise


def cleanup() -> None:
    """Remove every lab that this process has made: what `mn` calls when something fails, or on Ctrl-C."""
    for net in _alive[:]:
        net.remove()


# For who makes a lab without `with` and forgets to stop it, and for what ends `mn` otherwise than it expects.
atexit.register(cleanup)


def remove_abandoned() -> None:
    """Remove labs whose process was killed (SIGKILL), before it could do so itself."""
    alive = {net.name for net in _alive}
    for mark in sorted(removal.FOLDER.glob(f"*/{_MARK}")):
        # Another process may be at it, too.
        with contextlib.suppress(OSError, ValueError, netns.CommandError):
            pid, name = int(mark.read_text()), mark.parent.name
            if name not in alive and (pid == os.getpid() or not Path("/proc", str(pid)).exists()):
                removal.remove(name)
