"""Mininet's command line, with what there is to ask of a Lockgate lab."""

from __future__ import annotations

from collections.abc import Callable

from mininet.cli import CLI
from mininet.log import error, output

from topo.mininet_flows import met
from topo.mininet_net import LabNet
from topo.mininet_nodes import GuestNode
from topo.netns import CommandError
from topo.spec import LabError


class LabCLI(CLI):
    """Mininet's, and: hosts, flows, move. `guest_a ping guest_b` is Mininet's own way to run a command in a node."""

    prompt = "lockgate> "
    mn: LabNet

    def do_hosts(self, _line: str) -> None:
        """Show the bare-metal hosts, their guests, and how far each is. Usage: hosts."""
        for host in self.mn.bare_metal:
            guests = [guest for guest in self.mn.hosts if guest.guest.host is host.host]
            shown = ", ".join(f"{guest} {' '.join(guest.spec.addresses)}" for guest in guests)
            output(f"{host}  VTEP {host.host.spec.vtep}  control {host.host.spec.control}  guests: {shown or 'none'}\n")
        self._try(lambda: output(self.mn.services.lockgate("status")))

    def do_flows(self, line: str) -> None:
        """Show the flows that a packet from a guest to another meets, on both hosts. Usage: flows GUEST GUEST."""
        names = line.split()
        if len(names) != 2 or any(not isinstance(self.mn.nameToNode.get(name), GuestNode) for name in names):
            error(f"usage: flows GUEST GUEST; guests: {' '.join(map(str, self.mn.hosts))}\n")
            return
        one, other = (self.mn[name] for name in names)
        self._try(lambda: output("".join(f"{flow}\n" for flow in met(one.guest, other.guest))))

    def do_move(self, line: str) -> None:
        """Replug a guest at another host, and tell the mapping database. Usage: move PORT HOST."""
        words = line.split()
        if len(words) != 2:
            hosts = " ".join(map(str, self.mn.bare_metal))
            error(f"usage: move PORT HOST; ports: {' '.join(map(str, self.mn.hosts))}; hosts: {hosts}\n")
            return
        self._try(lambda: self.mn.move(*words))

    def _try(self, what: Callable[[], object]) -> None:
        try:
            what()
        except (CommandError, LabError) as problem:
            error(f"{problem}\n")
