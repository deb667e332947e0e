"""What vagrant/provision.sh is told to make of two machines."""

from __future__ import annotations

from typing import Final

from topo.vm_lab import VmLab

PROVISION: Final = "/mnt/provision.sh"
_ROLES: Final = {
    "host-1": f"ALSO_CONTROL=1 {PROVISION} host 1 eth1 eth2; {PROVISION} control br-ctl 2",
    "host-2": f"{PROVISION} host 2 eth1 eth2",
}


def provision(lab: VmLab) -> list[str]:
    """Make the machines hosts, and one of them the control machine; return what each says that it has changed."""
    return lab.on_all(lambda machine: machine.run(_ROLES[machine.name]))
