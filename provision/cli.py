"""`lockgate provision`, `lockgate release`, `lockgate attest`."""

# ruff: noqa: PLR0913 - a command has as many options as it needs

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import subprocess
import time
from collections.abc import Callable
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.text import Text

from explain.cli import Via
from explain.hosts import DEFAULT_VIA, UnreachableError
from mapping import values
from mapping.cli_common import Settings, console, settings
from mapping.errors import MappingError
from mapping.writer import Writer
from provision import redfish
from provision.lab import LabMachine
from provision.machine import Machine
from provision.order import Event, Run
from provision.record import Ledger, Record
from provision.site import Site
from provision.watch import INTERVAL, Alarm, Policy, Watcher

_LAB: Final = "lab:"

PortArgument = Annotated[str, typer.Argument(metavar="PORT", help="The port whose guest is to run there.")]
OnHost = Annotated[str, typer.Option("--host", help="The bare-metal host.")]
Image = Annotated[str, typer.Option(help="URL of what it boots, as a virtual CD; from the network unless given.")]
Device = Annotated[str | None, typer.Option(help="The machine's device on br-guest; the port's name unless given.")]
BootSeconds = Annotated[float, typer.Option("--boot-timeout", min=1, help="Seconds for the guest to be seen.")]
Wipe = Annotated[
    str | None,
    typer.Option(envvar="LOCKGATE_WIPE", help="A command that wipes the machine; LOCKGATE_HOST and _PORT name it."),
]
Watch = Annotated[bool, typer.Option("--watch", help="Look every two seconds, until Ctrl-C.")]
OnFault = Annotated[Policy, typer.Option("--policy", help="What is done about what is wrong.")]
Controllers = Annotated[
    list[str] | None, typer.Option("--controller", help="A target that both bridges must have. May be repeated.")
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
    via: Via = DEFAULT_VIA,
) -> None:
    """Give a host to a port's guest: power off, rules in place and confirmed, and only then power on.

    The BMC's user and password come from LOCKGATE_BMC_USER and LOCKGATE_BMC_PASSWORD, or the file that
    LOCKGATE_BMC_CREDENTIALS names. A run that was broken off is gone on with by the same command.
    """
    options = settings(context)
    try:
        where = values.parse_device(device or port)
    except ValueError as error:
        raise MappingError(f"{error}: or name the machine's with --device") from None
    with Writer(options.remotes) as writer:
        site = Site(writer, via, options.cause)
        run, show = _run(options, Ledger(writer), site, _machine(site, host, port, where))
        record = run.provision(host, port, where, image, boot_timeout)
        show.end(record)


def release(context: typer.Context, *, port: PortArgument, wipe: Wipe = None, via: Via = DEFAULT_VIA) -> None:
    """Take a host back from a port's guest: power off, port closed and confirmed, wiped, available."""
    options = settings(context)
    with Writer(options.remotes) as writer:
        record = Ledger(writer).of_port(port)
        if record is None:
            raise MappingError(f"port {port} is provisioned on no host: look with `lockgate host list`")
        site = Site(writer, via, options.cause)
        machine = _machine(site, record.host, port, record.device)
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
    options = settings(context)
    with Writer(options.remotes) as writer:
        site = Site(writer, via, options.cause)
        watcher = Watcher(site, via, host, policy, frozenset(controller or ()))
        found = 0
        while True:
            try:
                for alarm in watcher.look():
                    found += 1
                    _say(options, alarm)
            except UnreachableError as error:
                if not watch:
                    raise
                _say(options, Alarm(host, str(error), ""))
            if not watch:
                break
            time.sleep(INTERVAL)
    if not found and not options.json:
        console().print(f"host {host}: bridges and flows are as they must be", style="green")
    raise typer.Exit(bool(found))


def _say(options: Settings, alarm: Alarm) -> None:
    if options.json:
        typer.echo(json.dumps(dataclasses.asdict(alarm)))
    else:
        done = f" ({alarm.done})" if alarm.done else ""
        console().print(Text(f"{alarm.host}: {alarm.what}{done}", "red"), soft_wrap=True)


def _run(options: Settings, ledger: Ledger, site: Site, machine: Machine) -> tuple[Run, _Show]:
    show = _Show(options)
    return Run(ledger, machine, site, show.event), show


def _machine(site: Site, host: str, port: str, device: str) -> Machine:
    row = site.host(site.snapshot(), host)
    if not row.bmc:
        raise MappingError(f"host {host} has no BMC in its row: add `bmc: https://...` to it, then `lockgate apply`")
    if row.bmc.startswith(_LAB):
        return LabMachine(host, row.bmc.removeprefix(_LAB), port, device, site.snapshot)
    return redfish.RedfishMachine(host, row.bmc, redfish.credentials(host), os.environ.get(redfish.CA))


def _wiping(command: str, host: str, port: str) -> Callable[[], None]:
    def wipe() -> None:
        env = {**os.environ, "LOCKGATE_HOST": host, "LOCKGATE_PORT": port}
        try:
            done = subprocess.run(shlex.split(command), env=env, capture_output=True, text=True, check=False)
        except OSError as error:
            raise MappingError(f"host {host}: cannot wipe: {error}: mend --wipe") from None
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}").splitlines()[-1]
            raise MappingError(f"host {host} is not wiped: {said[:300]}: wipe it by hand, or mend --wipe")

    return wipe


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
