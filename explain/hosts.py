"""How the switches of the hosts are asked: their own tools are run there, by whatever runs commands on a host.

`via` is the beginning of a command in which `{host}` stands for the host's name: "ssh root@{host}", for the lab
"lockgate lab exec {host} --". Nothing listens anywhere for it, and no host needs more than Open vSwitch. All arguments
are plain words, so that it makes no difference whether a shell reads them on the way; all else goes by standard input.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

from explain import ofproto
from explain.ofproto import Difference, Step
from flows.meter import Meters
from mapping.errors import MappingError

DEFAULT_VIA: Final = "ssh {host}"

_PLAIN: Final = re.compile(r"[A-Za-z0-9_.,:=/+-]+")
_SECONDS: Final = 30
_OPENFLOW: Final = "-OOpenFlow15"
_TOOLS_SECONDS: Final = f"--timeout={_SECONDS - 5}"

Answer = TypeVar("Answer")


class UnreachableError(MappingError):
    """A host could not be asked, or its Open vSwitch did not answer."""


class NonsenseError(MappingError):
    """A host printed what its tools never do: it may be in wrong hands."""


class Switch:
    """The Open vSwitch of one host.

    Raises, whatever is asked:
        UnreachableError: it could not be, and why.
        NonsenseError: its answer is none.
    """

    def __init__(self, host: str, via: str) -> None:
        self.host = host
        try:
            self._prefix = [word.replace("{host}", host) for word in shlex.split(via)]
        except ValueError as error:
            raise MappingError(f"--via {via!r}: {error}: write a command, like '{DEFAULT_VIA}'") from None
        if not self._prefix:
            raise MappingError(f"--via {via!r} is no command: write one, like '{DEFAULT_VIA}'; `env` runs here")

    def ports(self, bridge: str) -> dict[str, int]:
        """A bridge's port names and numbers."""
        said = self._run("ovs-ofctl", _OPENFLOW, _TOOLS_SECONDS, "dump-ports-desc", bridge)
        return self._understood(ofproto.ports, said, f"ports of {bridge}")

    def trace(self, bridge: str, packet: str) -> list[Step]:
        """The flows that a packet would meet. Nothing is sent."""
        return ofproto.steps(self._run("ovs-appctl", _TOOLS_SECONDS, "ofproto/trace", "--names", bridge, packet))

    def flows(self, bridge: str) -> str:
        """Every flow of a bridge, as ovs-ofctl reads it, without its statistics."""
        options = ("--no-names", "--no-stats")
        return self._run("ovs-ofctl", _OPENFLOW, _TOOLS_SECONDS, *options, "dump-flows", bridge)

    def flow(self, bridge: str, cookie: int) -> str:
        """The flows of a bridge that have a cookie, as ovs-ofctl shows them to people."""
        which = f"cookie={cookie:#x}/-1"
        said = self._run("ovs-ofctl", _OPENFLOW, _TOOLS_SECONDS, "--names", "dump-flows", bridge, which)
        return "\n".join(line.strip() for line in said.splitlines() if "cookie=" in line)

    def meters(self, bridge: str) -> Meters:
        """Every meter of a bridge."""
        said = self._run("ovs-ofctl", _OPENFLOW, _TOOLS_SECONDS, "dump-meters", bridge)
        return self._understood(ofproto.meters, said, f"meters of {bridge}")

    def change_meter(self, command: str, bridge: str, meter: str) -> None:
        """Carry out "add-meter", "mod-meter" or "del-meter"."""
        self._run("ovs-ofctl", _OPENFLOW, _TOOLS_SECONDS, command, bridge, meter)

    def vsctl(self, *words: str) -> str:
        """What ovs-vsctl prints for these words."""
        return self._run("ovs-vsctl", _TOOLS_SECONDS, *words)

    def port_stats(self, bridge: str, port: str) -> str:
        """What has passed a port until now; the Interface table tells it up to five seconds late."""
        return self._run("ovs-ofctl", _OPENFLOW, _TOOLS_SECONDS, "dump-ports", bridge, port)

    def change(self, bridge: str, changes: Sequence[str]) -> None:
        """Change flows, all of them or none: lines of "add FLOW" and "delete_strict FLOW"."""
        argv = ("ovs-ofctl", _OPENFLOW, _TOOLS_SECONDS, "--bundle", "add-flows", bridge, "-")
        self._run(*argv, stdin="\n".join([*changes, ""]))

    def _run(self, *argv: str, stdin: str = "") -> str:
        if odd := [word for word in argv if not _PLAIN.fullmatch(word)]:
            raise ValueError(f"{odd} is not plain")
        command = [*self._prefix, *argv]
        try:
            done = subprocess.run(
                command, input=stdin, capture_output=True, text=True, timeout=_SECONDS, check=False, errors="replace"
            )
        except FileNotFoundError:
            raise self._problem(f"there is no program {command[0]}") from None
        except (OSError, subprocess.TimeoutExpired) as error:
            raise self._problem(str(error)) from None
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}").splitlines()
            raise self._problem(said[-1][-300:])
        return _printable(done.stdout)

    def _understood(self, read: Callable[[str], Answer], said: str, what: str) -> Answer:
        try:
            return read(said)
        except ValueError:
            raise NonsenseError(
                f"what host {self.host} prints as {what} is none: look whether it is in wrong hands"
            ) from None

    def _problem(self, what: str) -> UnreachableError:
        begin, what = shlex.join(self._prefix), _printable(what)
        return UnreachableError(
            f"host {self.host} cannot be asked by `{begin} ...`: {what}: say with --via or LOCKGATE_VIA how a "
            f"command is run on a host, where {{host}} is its name, like '{DEFAULT_VIA}'"
        )


def _printable(said: str) -> str:
    """What a host has said, without what an operator's terminal would obey: it may be in wrong hands."""
    return "".join(char if char.isprintable() or char == "\n" else "?" for char in said)


def compare(bridge: str, installed: str, desired: str) -> list[Difference]:
    """The flows that only one of two lists has. Open vSwitch's own parser decides what is the same.

    Raises:
        NonsenseError: the installed ones are none.
        MappingError: ovs-ofctl does not understand the desired ones, or is not here.
    """
    with tempfile.TemporaryDirectory(prefix="lockgate-") as folder:
        for name, content in (("installed", installed), ("desired", desired)):
            Path(folder, name).write_text(content)
        argv = ["ovs-ofctl", _OPENFLOW, "diff-flows", "installed", "desired"]
        try:
            done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False, timeout=600)
        except FileNotFoundError:
            raise MappingError("ovs-ofctl is not installed here: install openvswitch-common") from None
    if done.returncode not in (0, 2):  # 2 tells that they differ
        said = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1][:300]
        kind = NonsenseError if ": installed:" in said else MappingError
        raise kind(f"ovs-ofctl does not understand the flows of {bridge}: {said}")
    try:
        return list(ofproto.differences(done.stdout, bridge))
    except ValueError as error:
        raise NonsenseError(str(error)) from None
