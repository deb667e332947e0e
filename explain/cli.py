"""`lockgate trace`, `lockgate explain`, `lockgate audit`."""

# ruff: noqa: PLR0913 - a command has as many options as it needs

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Annotated, Any, Final, TypeVar

import typer

from explain import audit as auditing
from explain import ofproto, packet, show, words
from explain import trace as tracing
from explain.audit import Finding
from explain.hosts import DEFAULT_VIA, UnreachableError
from explain.packet import Packet, Proto
from explain.site import Bridge, Switches
from flows.pipeline import BR_GUEST, BR_NIC, FILTERED, METERED, TABLES, UPLINK_FILTERED, Reason
from mapping import status, wanted
from mapping.cli_common import RefusedError, console, follow, print_json, settings
from mapping.model import Host, Port, Snapshot
from mapping.replica import Replica

_ROLES: Final = (BR_GUEST, BR_NIC)
_AT_ONCE: Final = 16
"""Hosts that are asked at the same time."""
_SETTLE_MS: Final = 1000
"""Between two looks at what differs: a change that is on its way has arrived by then."""

Found = TypeVar("Found")

From = Annotated[str, typer.Argument(metavar="FROM", help="The port that sends, by name.")]
To = Annotated[str, typer.Argument(metavar="TO", help="A port by name, or an address.")]
Protocol = Annotated[Proto, typer.Option("--proto", help="What is sent: a ping, or the first packet to a port.")]
PortNumber = Annotated[int, typer.Option("--port", min=1, max=65535, help="Destination port of TCP or UDP.")]
Via = Annotated[
    str,
    typer.Option(
        envvar="LOCKGATE_VIA",
        help="How a command is run on a host; {host} is its name. In the lab: 'lockgate lab exec {host} --'.",
    ),
]
Hosts = Annotated[list[str] | None, typer.Option("--host", help="This host only. May be repeated.")]
What = Annotated[str, typer.Argument(metavar="COOKIE", help="A flow's cookie, like 0x10c6..., or a reason to drop.")]
Mend = Annotated[bool, typer.Option("--mend", help="Put in place what is missing or changed, delete what is stale.")]
Strangers = Annotated[bool, typer.Option("--strangers", help="With --mend: delete flows of others as well.")]


def trace(
    context: typer.Context,
    *,
    sender: From,
    receiver: To,
    proto: Protocol = Proto.ICMP,
    port: PortNumber = 80,
    via: Via = DEFAULT_VIA,
) -> None:
    """Tell what would happen to a packet between two ports, flow by flow, and which rows are behind each.

    The hosts' own switches are asked, about the flows that they hold now. Nothing is sent.
    """
    with _following(context) as replica:
        report = status.report(replica.tables, replica.snapshot, time.time())
        site = Switches(replica.snapshot, via)
        source, sent = _packet(replica.snapshot, sender, receiver, proto, port)
        made = tracing.trace(site, source, sent)
    behind = {host.name: host.lag for host in report.hosts if host.lag}
    notes = [
        f"host {name} is {behind[name]} change(s) behind the database: look with `lockgate status`"
        for name in dict.fromkeys(met.host for met in made.met)
        if name in behind
    ]
    if settings(context).json:
        print_json(show.trace_as_json(made, sent, notes))
    else:
        show.show_trace(made, sent, notes)
    raise typer.Exit(int(made.verdict not in ("delivered", "answered")))


def explain(context: typer.Context, *, what: What, host: Hosts = None, via: Via = DEFAULT_VIA) -> None:
    """Tell which row is behind a flow, what it does, and where it is installed; or what a reason to drop means."""
    options = settings(context)
    if reason := next((each for each in Reason if what in (each.label, str(each.number))), None):
        given = _given(reason)
        found = {"reason": reason.label, "number": reason.number, "meaning": reason.meaning, "by": given}
        if options.json:
            print_json(found)
        else:
            console().print(f"{reason.label} ({reason.number:#x}): {reason.meaning}", soft_wrap=True, markup=False)
            console().print(f"given by {', '.join(given)}", soft_wrap=True, markup=False)
        return
    cookie = _cookie(what)
    with _following(context) as replica:
        chosen = _hosts(replica.snapshot, host)
        site = Switches(replica.snapshot, via)
        places = [place for found in _each(chosen, lambda each: _explained(site, each, cookie)) for place in found]
    if options.json:
        print_json([show.place_as_json(place) for place in places])
    else:
        show.show_places(cookie, places)
    raise typer.Exit(int(not any(place["desired"] or place["installed"] for place in places)))


def audit(
    context: typer.Context,
    *,
    host: Hosts = None,
    mend: Mend = False,
    strangers: Strangers = False,
    via: Via = DEFAULT_VIA,
) -> None:
    """Compare the flows that are installed with those that the database asks for, on every host.

    What differs is looked at twice, a second apart: changes that are on their way are not wrong. Exit status 1 if
    something stays wrong, or a host could not be asked.
    """
    if strangers and not mend:
        raise typer.BadParameter("it says what --mend is to do: give both", param_hint="--strangers")
    options = settings(context)
    with _following(context) as replica:
        chosen = _hosts(replica.snapshot, host)
        results = dict(zip((each.name for each in chosen), _each(chosen, _audited(replica.snapshot, via)), strict=True))
        wrong = [each for each in chosen if results[each.name][0]]
        if wrong:
            replica.wait_until(lambda: False, _SETTLE_MS)
            look = _audited(replica.snapshot, via, mend=mend, strangers=strangers, before=results)
            results |= dict(zip((each.name for each in wrong), _each(wrong, look), strict=True))
    findings = [finding for found, _, _ in results.values() for finding in found]
    mended = sum(count for _, count, _ in results.values())
    failed = {name: problem for name, (_, _, problem) in results.items() if problem}
    if options.json:
        shown = [show.finding_as_json(each) for each in findings]
        print_json({"hosts": list(results), "differences": shown, "mended": mended, "not_asked": failed})
    else:
        show.show_audit(findings, mended, len(results) - len(failed), failed)
    left = sum(strangers or each.kind != "stranger" for each in findings) - mended
    raise typer.Exit(int(bool(failed) or left > 0))


_Result = tuple[list[Finding], int, str]
"""What differs on a host, how much of it was mended, and why the host could not be asked."""


def _audited(
    snapshot: Snapshot,
    via: str,
    *,
    mend: bool = False,
    strangers: bool = False,
    before: dict[str, _Result] | None = None,
) -> Callable[[Host], _Result]:
    site = Switches(snapshot, via)

    def look(host: Host) -> _Result:
        found: list[Finding] = []
        mended = 0
        try:
            for role in _ROLES:
                bridge = site.bridge(host, role)
                here = auditing.audit(bridge)
                if before is not None:
                    here = auditing.again(before[host.name][0], here)
                if mend:
                    mended += auditing.mend(bridge, here, strangers=strangers)
                found += here
        except UnreachableError as error:
            return found, mended, str(error)
        return found, mended, ""

    return look


@contextmanager
def _following(context: typer.Context) -> Iterator[Replica]:
    options = settings(context)
    replica = Replica(options.remotes, status.COLUMNS)
    try:
        follow(replica, options)
        yield replica
    finally:
        replica.session.close()


def _each(hosts: Sequence[Host], ask: Callable[[Host], Found]) -> list[Found]:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(ask, hosts))


def _hosts(snapshot: Snapshot, names: list[str] | None) -> list[Host]:
    there = {host.name: host for host in sorted(snapshot.hosts.values(), key=lambda host: host.name)}
    for name in names or ():
        if name not in there:
            raise RefusedError([f"there is no host {name}: {wanted.suggest(name, list(there))}"])
    return [there[name] for name in dict.fromkeys(names or there)]


def _port(snapshot: Snapshot, name: str) -> Port:
    there = {port.name: port for port in snapshot.ports.values()}
    if name not in there:
        raise RefusedError([f"there is no port {name}: {wanted.suggest(name, sorted(there))}"])
    return there[name]


def _packet(snapshot: Snapshot, sender: str, receiver: str, proto: Proto, port: int) -> tuple[Port, Packet]:
    """The packet that the sending port's guest would send there, and that port."""
    source = _port(snapshot, sender)
    if source.host is None:
        raise RefusedError([f"port {sender} is on no host, so nothing comes from it: `lockgate port move {sender}`"])
    try:
        targets = [str(ip_address(receiver))]
    except ValueError:
        targets = _addresses(snapshot, _port(snapshot, receiver))
    own = _addresses(snapshot, source)
    pairs = [(one, other) for other in targets for one in own if (":" in one) == (":" in other)]
    if not pairs:
        raise RefusedError(
            [f"ports {sender} and {receiver} have no addresses of one IP version: map some with `lockgate mapping add`"]
        )
    addresses = pairs[0]
    vpc = snapshot.vpcs[source.vpc]
    ends = [ip_address(address) for address in addresses]
    together = any(all(end in subnet for end in ends) for subnet in vpc.subnets)
    found = (each for each in snapshot.mappings.values() if each.vpc == vpc.uuid and each.ip == addresses[1])
    mapped = next(found, None)
    mac = snapshot.ports[mapped.port].mac if mapped and together else vpc.router_mac
    return source, packet.inner(proto, port, (source.mac, mac), addresses)


def _addresses(snapshot: Snapshot, port: Port) -> list[str]:
    """A port's addresses, IPv4 first."""
    mapped = (ip_address(each.ip) for each in snapshot.mappings.values() if each.port == port.uuid)
    return [str(ip) for ip in sorted(mapped, key=lambda ip: (ip.version, int(ip)))]


def _cookie(text: str) -> int:
    try:
        cookie = int(text, 16)
    except ValueError:
        cookie = -1
    if not 0 <= cookie < 1 << 64:
        labels = [reason.label for reason in Reason]
        raise RefusedError(
            [f"{text} is no cookie, like 0x10c6c3949bd5b275, and no reason: {wanted.suggest(text, labels)}"]
        )
    return cookie


def _given(reason: Reason) -> list[str]:
    """The tables that drop for this reason, or what else does."""
    if reason in METERED:
        return [f"a meter of {BR_GUEST}"]
    for filtered, what in ((FILTERED, "port"), (UPLINK_FILTERED, "uplink")):
        if reason in filtered:
            return [f"the filter ahead of the {what}"]
    tables = (table for bridge in TABLES.values() for table in bridge.values())
    return [f"{table.bridge} {table.name}" for table in tables if reason in (table.miss, *table.named_misses)]


def _explained(site: Switches, host: Host, cookie: int) -> list[dict[str, Any]]:
    """What is known of a cookie on a host's bridges: those where it is, or should be."""
    found = []
    for role in _ROLES:
        problem, said = "", ""
        try:
            bridge = site.bridge(host, role)
            said = bridge.switch.flow(role, cookie)
        except UnreachableError as error:
            problem = str(error)
            bridge = site.unasked(host, role, {})
        if place := _place(bridge, cookie, said, problem):
            found.append(place)
    return found


def _place(bridge: Bridge, cookie: int, said: str, problem: str) -> dict[str, Any] | None:
    origin = bridge.origins.get(cookie)
    if not origin and not said:
        return None
    age, packets, count = next(ofproto.counters(said), (None, None, None))
    return {
        "host": bridge.switch.host,
        "bridge": bridge.role,
        "table": origin.flow.table.name if origin else "",
        "flow": str(origin.flow) if origin else said,
        "words": words.words(origin.flow, bridge.names) if origin else "",
        "rows": origin.rows if origin else (),
        "desired": origin is not None,
        "installed": bool(said) if not problem else None,
        "age": age,
        "packets": packets,
        "bytes": count,
        "problem": problem,
    }
