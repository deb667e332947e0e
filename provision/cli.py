"""`lockgate provision`, `lockgate release`, `lockgate attest`."""

# ruff: noqa: PLR0913 - a command has as many options as it needs

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from subprocess import PIPE, Popen, TimeoutExpired
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.text import Text

from explain.cli import Via
from explain.hosts import DEFAULT_VIA
from mapping import values
from mapping.cli_common import Settings, console, settings
from mapping.errors import MappingError
from mapping.writer import Writer
from provision import control_network, redfish
from provision.lab import LabMachine
from provision.machine import Machine
from provision.order import Event, Run, Wipe
from provision.record import Ledger, Record
from provision.redfish import Credentials
from provision.site import Site
from provision.watch import INTERVAL, Alarm, Policy, Watcher

_LAB: Final = "lab:"

PortArgument = Annotated[str, typer.Argument(metavar="PORT", help="The port whose guest is to run there.")]
OnHost = Annotated[str, typer.Option("--host", help="The bare-metal host.")]
Image = Annotated[str, typer.Option(help="URL of what it boots, as a virtual CD; from the network unless given.")]
Device = Annotated[str | None, typer.Option(help="The machine's device on br-guest; the port's name unless given.")]
BootSeconds = Annotated[float, typer.Option("--boot-timeout", min=1, help="Seconds for the guest to be seen.")]
WipeCommand = Annotated[
    str | None,
    typer.Option(envvar="LOCKGATE_WIPE", help="A command that wipes the machine; LOCKGATE_HOST and _PORT name it."),
]
Watch = Annotated[bool, typer.Option("--watch", help="Look every two seconds, until Ctrl-C.")]
OnFault = Annotated[
    Policy, typer.Option("--policy", envvar="LOCKGATE_ATTEST_POLICY", help="What is done about what is wrong.")
]
Controllers = Annotated[
    list[str] | None,
    typer.Option(
        "--controller", envvar="LOCKGATE_CONTROLLERS", help="A target that both bridges must have. May be repeated."
    ),
]
HostArgument = Annotated[str, typer.Argument(metavar="HOST", help="The bare-metal host.")]


def provision(
    context: typer.Context,
    *,
    port: PortArgument,
    host: OnHost,
    image: Image = "",
    device: Device = None,
    boot_timeout: BootSeconds = 600.0,
    controller: Controllers = None,
    via: Via = DEFAULT_VIA,
) -> None:
    """Give a host to a port's guest: power off, rules in place and confirmed, and only then power on.

    The BMC's user and password come from LOCKGATE_BMC_USER and LOCKGATE_BMC_PASSWORD, or the file that
    LOCKGATE_BMC_CREDENTIALS names. A run that was broken off is gone on with by the same command.
    """
    with _told(context) as (options, given), Writer(options.remotes) as writer:
        try:
            where = values.parse_device(device or port)
        except ValueError as error:
            raise MappingError(f"{error}: or name the machine's with --device") from None
        site = Site(writer, via, options.cause, frozenset(controller or ()))
        run, show = _run(options, Ledger(writer), site, _machine(site, host, port, where, given))
        show.end(run.provision(host, port, where, image, boot_timeout))


def release(
    context: typer.Context,
    *,
    port: PortArgument,
    wipe: WipeCommand = None,
    controller: Controllers = None,
    via: Via = DEFAULT_VIA,
) -> None:
    """Take a host back from a port's guest: power off, port closed and confirmed, wiped, available."""
    with _told(context) as (options, given), Writer(options.remotes) as writer:
        record = Ledger(writer).of_port(port)
        if record is None:
            raise MappingError(f"port {port} is provisioned on no host: look with `lockgate host list`")
        site = Site(writer, via, options.cause, frozenset(controller or ()))
        machine = _machine(site, record.host, port, record.device, given)
        run, show = _run(options, Ledger(writer), site, machine)
        show.end(run.release(record.host, port, _wiping(wipe, record.host, port) if wipe else None))


def attest(
    context: typer.Context,
    *,
    host: HostArgument,
    watch: Watch = False,
    policy: OnFault = Policy.REPORT,
    controller: Controllers = None,
    via: Via = DEFAULT_VIA,
) -> None:
    """Compare a host's bridges and flows with what they must be. Exit status 1 if something is not."""
    with _told(context) as (options, _), Writer(options.remotes) as writer:
        site = Site(writer, via, options.cause, frozenset(controller or ()))
        site.host(site.snapshot(), host)
        watcher = Watcher(site, Ledger(writer), host, policy)
        found = 0
        while True:
            for alarm in watcher.look():
                found += 1
                _say(options, alarm)
            if not watch:
                break
            time.sleep(INTERVAL)
    if not found and not options.json:
        console().print(f"host {host}: bridges and flows are as they must be", style="green")
    raise typer.Exit(bool(found))


@contextmanager
def _told(context: typer.Context) -> Iterator[tuple[Settings, Credentials]]:
    """The options, and what the environment had of BMCs' credentials, which it has no more: no child is to have them.

    For programs, which read these commands line by line, an error is one line.
    """
    options, given = settings(context), redfish.take_out()
    try:
        yield options, given
    except MappingError as error:
        if not options.json:
            raise
        typer.echo(json.dumps({"error": str(error), "problems": [str(error)]}))
        raise typer.Exit(1) from None


def _say(options: Settings, alarm: Alarm) -> None:
    if options.json:
        typer.echo(json.dumps(dataclasses.asdict(alarm)))
    else:
        done = f" ({alarm.done})" if alarm.done else ""
        console().print(Text(f"{alarm.host}: {alarm.what}{done}", "red"), soft_wrap=True)


def _run(options: Settings, ledger: Ledger, site: Site, machine: Machine) -> tuple[Run, _Show]:
    show = _Show(options)
    return Run(ledger, machine, site, show.event), show


def _machine(site: Site, host: str, port: str, device: str, given: Credentials) -> Machine:
    snapshot = site.snapshot()
    row = site.host(snapshot, host)
    if not row.bmc:
        raise MappingError(f"host {host} has no BMC in its row: add `bmc: https://...` to it, then `lockgate apply`")
    if row.bmc.startswith(_LAB):
        return LabMachine(host, row.bmc.removeprefix(_LAB), port, device, site.snapshot)
    networks = control_network.networks(snapshot.hosts.values())
    return redfish.RedfishMachine(host, row.bmc, redfish.credentials(host, given), networks, os.environ.get(redfish.CA))


def _wiping(command: str, host: str, port: str) -> Wipe:
    def wipe(beat: Callable[[], None]) -> None:
        env = {**os.environ, "LOCKGATE_HOST": host, "LOCKGATE_PORT": port}
        try:
            process = Popen(shlex.split(command), env=env, stdout=PIPE, stderr=PIPE, text=True, errors="replace")
        except (OSError, ValueError) as error:
            raise MappingError(f"host {host}: cannot wipe: {error}: mend --wipe") from None
        with process:
            try:
                out, err = _ended(process, beat)
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            said = (err.strip() or out.strip() or f"exit status {process.returncode}").splitlines()[-1]
            raise MappingError(f"host {host} is not wiped: {said[:300]}: wipe it by hand, or mend --wipe")

    return wipe


def _ended(process: Popen[str], beat: Callable[[], None]) -> tuple[str, str]:
    """What it has said, on standard output and as errors. It may take hours."""
    while True:
        try:
            return process.communicate(timeout=1)
        except TimeoutExpired:
            beat()


class _Show:
    """Steps and times: lines for people, one JSON object a line for programs."""

    def __init__(self, options: Settings) -> None:
        self._json = options.json
        self._out = console()
        self._spinner = Console(stderr=True).status("")

    def event(self, event: Event) -> None:
        if self._json:
            typer.echo(json.dumps(dataclasses.asdict(event)))
            return
        if event.done:
            self._spinner.stop()
            self._out.print(Text(f"{event.seconds:7.1f} s  {event.what}"))
        elif self._out.is_terminal:
            self._spinner.update(Text(event.what))
            self._spinner.start()

    def end(self, record: Record) -> None:
        self._spinner.stop()
        if self._json:
            typer.echo(json.dumps(dataclasses.asdict(record)))
        else:
            for_port = f" for port {record.port}" if record.port else ""
            self._out.print(Text(f"host {record.host} is {record.state}{for_port}", "green"))
