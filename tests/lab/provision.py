"""What vagrant/provision.sh is told to make of two machines."""

from __future__ import annotations

from typing import Final

from topo.machine import Machine
from topo.vm_lab import TLS, VmLab

_PROVISION: Final = "/mnt/provision.sh"
_INSTALL: Final = f"{_PROVISION} install /mnt/lockgate.deb {TLS}"
_ROLES: Final = {
    # A host that is the control machine, too.
    "host-1": f"""
        {_INSTALL}/host-1.tar
        ALSO_CONTROL=1 {_PROVISION} host 1 eth1 eth2
        {_INSTALL}/control.tar
        {_PROVISION} control br-ctl 2
        """,
    "host-2": f"""
        {_INSTALL}/host-2.tar
        {_PROVISION} host 2 eth1 eth2
        """,
}


def provision(lab: VmLab, *, metal: bool = False) -> list[str]:
    """Make the machines hosts, and one of them the control machine; return what each says that it has changed.

    With `metal` each has a guest more, metal-N, with a kernel of its own: 10.0.0.(20 + N).
    """

    def make(machine: Machine) -> str:
        lab.put_certificates(machine)
        return machine.run(f"export METAL={'1' if metal else ''}\n{_ROLES[machine.name]}")

    return lab.on_all(make)
