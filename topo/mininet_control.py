"""The mapping database and ryu-manager of a Mininet lab: what has to run in Lockgate's own Python.

    mn, Debian's Python                                .venv's Python: ryu, ovs, yaml
    +---------------------+  python -m topo.mininet_control NAME database|controller|wait
    | topo.mininet_net    |----------------------------> topo.control ----> ovsdb-server, ryu-manager
    +---------------------+  python -m mapping.cli apply, port move, status

`mn` runs in the Python of Debian, for which the packages in .venv are not built. So what it imports of ours needs
nothing but the standard library and Mininet, and the rest are processes. This file is both ends: `ControlProcess` is
imported by `mn`, and `main` is what it starts.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from topo import netns
from topo.removal import BUILDER, FOLDER, prefix
from topo.spec import LabError

ROOT: Final = Path(__file__).parents[1]
PYTHON: Final = "LOCKGATE_PYTHON"
"""Names another Python than .venv's in the environment, for who has installed Lockgate elsewhere."""


class ControlProcess:
    """The services of one lab's control network, by the lab's name."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.folder = FOLDER / name
        self.remote = f"unix:{self.folder}/mapping.sock"
        self._python = Path(os.environ.get(PYTHON) or ROOT / ".venv/bin/python")

    @property
    def commands(self) -> Path:
        """Where `lockgate` and `ryu-manager` are."""
        return self._python.parent

    def start_database(self, mapping: str) -> None:
        """Start the mapping database, and apply a mapping file's content."""
        self._run(BUILDER, self._name, "database")
        file = self.folder / "mapping.yaml"
        file.write_text(mapping)
        self.lockgate("apply", "--prune", "-f", str(file))

    def start_controller(self) -> None:
        """Start ryu-manager, and wait until every host is programmed."""
        self._run(BUILDER, self._name, "controller")

    def wait_applied(self) -> None:
        """Wait until every host's switches hold what the database says."""
        self._run(BUILDER, self._name, "wait")

    def lockgate(self, *args: str) -> str:
        """The `lockgate` command on this lab's database."""
        return self._run("mapping.cli", "--db", self.remote, *args)

    def _run(self, module: str, *args: str) -> str:
        if not self._python.exists():
            raise LabError(
                f"no {self._python}: run `make setup` in {ROOT}, or name a Python that has Lockgate in {PYTHON}"
            )
        env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            return netns.run(None, [str(self._python), "-m", module, *args], env=env, seconds=90)
        except netns.CommandError as error:
            raise LabError(str(error)) from None


def main(name: str, what: str) -> None:
    """Do it in this process, which has to be Lockgate's own Python."""
    from topo.control import Control  # noqa: PLC0415  # needs packages that the other end lacks

    control = Control(f"{prefix(name)}control", FOLDER / name)
    if what == "database":
        control.start_database()
    elif what == "controller":
        control.controller.start()
        control.wait_applied()
    else:
        control.wait_applied()


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (LabError, netns.CommandError, subprocess.CalledProcessError) as problem:
        sys.exit(str(problem))
