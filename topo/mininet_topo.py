"""The topologies, as Mininet's Topo: `mn --topo` makes them by the names in `TOPOLOGIES`.

Every host is on two networks that share nothing: the substrate, drawn here, and the control network:

    control, 198.51.100.1: mapping database, ryu-manager
       |        |
    host1    host2 ...     br-ctl, 198.51.100.10 and up
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Final

from mininet.link import Link
from mininet.topo import Topo

from topo import mininet_plan
from topo.guest import PORT
from topo.mininet_links import Cable, SubstrateCable
from topo.mininet_nodes import BareMetalHost, ControlNetwork, GuestNode, SubstrateSwitch
from topo.mininet_plan import Plan
from topo.spec import MGMT, UPLINK

CONTROL: Final = "control"


class LabTopo(Topo):
    """A topology that is made of a plan; parameters are those of `make`."""

    make: ClassVar[Callable[..., Plan]]

    def build(self, *args: Any, **params: Any) -> None:
        """Turn the plan into Mininet's nodes and links."""
        plan = self.plan = type(self).make(*args, **params)
        self.addSwitch(CONTROL, cls=ControlNetwork, mapping=plan.document())
        loops = len(plan.cables) - len(plan.hosts) >= len(plan.switches)
        for number, switch in enumerate(plan.switches):
            self.addSwitch(switch, cls=SubstrateSwitch, number=number, loops=loops)
        for host in plan.hosts:
            self.addSwitch(host.name, cls=BareMetalHost, spec=host)
            self.addLink(host.name, CONTROL, cls=Cable, intfName1=MGMT, intfName2=host.name)
        for one, other in plan.cables:
            ends = (UPLINK if one.startswith("host") else other, one)
            self.addLink(
                *(one, other),
                cls=SubstrateCable,
                intfName1=ends[0],
                intfName2=ends[1],
                loss=plan.loss,
                delay=plan.delay,
            )
        for guest in plan.guests:
            self.addHost(guest.name, cls=GuestNode, spec=guest)
            self.addLink(*(guest.name, guest.host), cls=Link, intfName1=PORT, intfName2=guest.device, addr1=guest.mac)


class BareMetal(LabTopo):
    """Hosts on one switch: `baremetal,hosts=2,guests=1,vpcs=1,encap=vxlan,loss=0,delay=5ms`.

           10.0.0.11 guest_a   guest_c 10.0.0.13      10.0.0.12 guest_b   guest_d 10.0.0.14
                        |         |                                |         |
                    +---+---------+---+                        +---+---------+---+
                    | host1 192.0.2.1 |                        | host2 192.0.2.2 |
                    +--------+--------+                        +--------+--------+
                             |                +------+                  |
                             +----------------+ sub1 +------------------+
                                              +------+

    This is `baremetal,guests=2`: two guests on each of two hosts. What is left away is as shown, and no delay.
    """

    make = staticmethod(mininet_plan.baremetal)


class LeafSpine(LabTopo):
    """A fabric: `leafspine,hosts=4,guests=1,leaves=2,spines=2,encap=vxlan,loss=0,delay=5ms`.

        +--------+        +--------+
        | spine1 |        | spine2 |
        +-+----+-+        +-+----+-+
          |    |            |    |
          |    +------------|--+ |
          |    +------------+  | |
        +-+----+-+        +----+-+-+
        | leaf1  |        |  leaf2 |
        +-+----+-+        +-+----+-+
          |    |            |    |
      host1    host3    host2    host4
        |        |        |        |
     guest_a  guest_c  guest_b  guest_d

    Every leaf is joined to every spine. The spanning tree uses one spine, and the next when a link to that is cut:
    `link leaf1 spine1 down`.
    """

    make = staticmethod(mininet_plan.leafspine)


class TwoVpcs(LabTopo):
    """Two VPCs that use the same addresses: `twovpcs,hosts=2,guests=1`.

        blue_a  10.0.0.11, 10.1.0.11         blue_b  10.0.0.12, 10.1.0.12
        green_a 10.0.0.11, 10.2.0.11         green_b 10.0.0.12, 10.2.0.12
            |                                    |
        +---+---+           +------+         +---+---+
        | host1 +-----------+ sub1 +---------+ host2 |
        +-------+           +------+         +-------+

    A ping to 10.0.0.12 from blue_a is for blue_b, and from green_a for green_b: `pingall` pings them so, and counts
    what the guests of the other VPC receive. With those alone nobody could even try to reach the other VPC. So each
    guest has an address in a subnet that only its VPC has, too: `pingall` pings those across, and all must be lost.
    """

    make = staticmethod(lambda *args, **params: mininet_plan.baremetal(*args, **{"vpcs": 2} | params))


class Lossy(LabTopo):
    """A substrate that loses packets: `lossy,loss=5`, percent of each cable in each direction; and as `baremetal`.

        guest_a - host1 ---- 5 % ---- sub1 ---- 5 % ---- host2 - guest_b         a ping crosses four times:
                    |                                      |                     18.5 % are lost
                    +------- 0 % --- control --- 0 % ------+

    The control network loses nothing, so Lockgate works as ever. `pingall` gives each pair several tries, and then
    sends many pings between two hosts and says how many were lost.
    """

    make = staticmethod(lambda *args, **params: mininet_plan.baremetal(*args, **{"loss": 5} | params))


TOPOLOGIES: Final[dict[str, type[LabTopo]]] = {
    "baremetal": BareMetal,
    "leafspine": LeafSpine,
    "twovpcs": TwoVpcs,
    "lossy": Lossy,
}
