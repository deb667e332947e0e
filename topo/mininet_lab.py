"""Lockgate for Mininet, as its users work with it.

On the command line, where this is the custom file:

    sudo mn --custom topo/mininet_lab.py --topo baremetal,hosts=3,guests=2 --test pingall
    sudo mn --custom topo/mininet_lab.py --topo twovpcs

From Python, with Debian's, which has Mininet, in the project's folder:

    sudo /usr/bin/python3 -c '
    from topo.mininet_lab import BareMetal, LabNet
    with LabNet(BareMetal(hosts=3, guests=2)) as net:
        net.pingAll()
        net.move("guest_a", "host2")
        print(net["guest_a"].cmd("ping -c1", net["guest_b"].IP()))
    '

The topologies are drawn in topo/mininet_topo.py.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

# Run as root, it leaves no file in the tree that an ordinary user could not replace.
sys.dont_write_bytecode = True
# `mn` runs this text without a module around it, so there is no __file__: but the code knows where it was read.
sys.path.insert(0, str(Path(sys._getframe().f_code.co_filename).resolve().parents[1]))  # noqa: SLF001

from mininet.node import NullController

from topo.mininet_cli import LabCLI
from topo.mininet_net import LabNet, cleanup
from topo.mininet_topo import TOPOLOGIES, BareMetal, LabTopo, LeafSpine, Lossy, TwoVpcs

__all__ = ["BareMetal", "LabCLI", "LabNet", "LabTopo", "LeafSpine", "Lossy", "TwoVpcs", "cleanup"]

# What follows is for `mn`, which takes every name that a custom file defines over into its own: so `mn` makes a LabNet
# where it says Mininet, opens our CLI, and cleans up by `cleanup` above. Its own would kill every ping and ryu-manager
# of the machine, and delete bridges of the machine's own Open vSwitch.
topos = TOPOLOGIES
CLI = LabCLI
Mininet = LabNet


def findController() -> object:
    """Which controller `mn` adds by default: none, as ryu-manager is the lab's own. It need not look for others."""
    return NullController


def _end(signum: int, _frame: object) -> None:
    raise SystemExit(128 + signum)


if __name__ != "topo.mininet_lab":
    # Who closes the terminal, or wants the process to end, ends it cleanly: what it has made is removed as it exits.
    # KeyboardInterrupt would not do, as Mininet's command line goes on after that.
    for _signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(_signum, _end)
