"""`lockgate vpc | host | group | port | mapping`: one row at a time, planned and checked as a file would be."""

# ruff: noqa: PLR0913 - a command has as many options as it needs

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping as MappingABC
from typing import Annotated, Final

import typer

from mapping import cli_names, plan, values, wanted
from mapping.cli_common import RefusedError, carry_out, missing, settings, show_rows
from mapping.errors import MappingError
from mapping.plan import Plan
from mapping.rows import Tables
from mapping.security_rules import parse_rule
from mapping.wanted import FIELDS, Key, Row
from mapping.writer import PROVISION, Writer

vpc = typer.Typer(no_args_is_help=True, help="Tenants' networks.")
host = typer.Typer(no_args_is_help=True, help="Bare-metal hosts: where they are on the substrate.")
group = typer.Typer(no_args_is_help=True, help="Security groups: what the ports that have them may send and receive.")
port = typer.Typer(no_args_is_help=True, help="Guests' attachments to their VPCs.")
mapping = typer.Typer(no_args_is_help=True, help="Addresses of VPCs, and the port that each is at; and the database.")

_hosts, _vpcs, _ports = map(cli_names.complete, ("Host", "Vpc", "Port"))

Name = Annotated[str, typer.Argument(help="Its name.")]
Vni = Annotated[str, typer.Option(help="Its number on the wire, 1 to 16777215.")]
Subnets = Annotated[list[str], typer.Option("--subnet", help="A subnet, like 10.0.0.0/24. May be repeated.")]
RouterMac = Annotated[str | None, typer.Option(help="The MAC that answers for the subnets' routers.")]
Mtu = Annotated[str | None, typer.Option(help="The guests' MTU in bytes; what the substrate carries unless given.")]
Dns = Annotated[list[str] | None, typer.Option(help="A name server that guests are told. May be repeated.")]
Routes = Annotated[list[str] | None, typer.Option("--route", help="A route, like 10.9.0.0/16=10.0.0.9. Repeatable.")]
Vtep = Annotated[str, typer.Option(help="The host's address on the substrate.")]
Encapsulation = Annotated[str | None, typer.Option("--encap", help="vxlan (unless given), geneve or gre.")]
GuestDatapath = Annotated[str | None, typer.Option(help="Datapath id of br-guest, 16 hex digits.")]
NicDatapath = Annotated[str | None, typer.Option(help="Datapath id of br-nic, 16 hex digits.")]
SubstrateMtu = Annotated[str | None, typer.Option(help="Bytes of IP packet that the substrate carries; 1500.")]
VpcName = Annotated[str, typer.Option("--vpc", help="The VPC's name.", autocompletion=_vpcs)]
Bmc = Annotated[str | None, typer.Option(help="What turns it on and off: https://BMC/redfish/v1/Systems/ID.")]
Mac = Annotated[str, typer.Option(help="The guest's MAC, like 02:00:00:00:00:01.")]
OptionalHost = Annotated[
    str | None, typer.Option("--host", help="The host that the guest is on.", autocompletion=_hosts)
]
Device = Annotated[str | None, typer.Option(help="The guest's interface on br-guest; the port's name unless given.")]
Addresses = Annotated[list[str] | None, typer.Option("--address", help="An address of the guest. May be repeated.")]
Allowed = Annotated[list[str] | None, typer.Option(help="What else it may send from: address or network. Repeatable.")]
LimitPairs = Annotated[list[str] | None, typer.Option("--limit", help="Like from_guest_kbps=1000. May be repeated.")]
BootPairs = Annotated[list[str] | None, typer.Option(help="For network boot, like bios=undionly.kpxe. Repeatable.")]
VpcArgument = Annotated[str, typer.Argument(metavar="VPC", help="The VPC's name.", autocompletion=_vpcs)]
Groups = Annotated[list[str] | None, typer.Option("--group", help="A security group it is subject to. Repeatable.")]
Rules = Annotated[list[str] | None, typer.Option("--rule", help='Like "to_guest tcp 443 from any". May be repeated.')]
Stateless = Annotated[bool, typer.Option("--stateless", help="Track no connections: replies need rules as well.")]
RuleArgument = Annotated[str, typer.Argument(metavar="RULE", help='Like "to_guest tcp 443 from any".')]
IpArgument = Annotated[str, typer.Argument(metavar="ADDRESS", help="An address of the VPC.")]
PortArgument = Annotated[
    str, typer.Argument(metavar="PORT", help="The name of the port that has the address.", autocompletion=_ports)
]

UNBOUND: Final[Row] = {"host": None, "moving_to": None, "previous_host": None}
_APPS: Final = {"Vpc": vpc, "Host": host, "SecurityGroup": group, "Port": port}


@vpc.command("add", epilog="Example: lockgate vpc add blue --vni 5001 --subnet 10.0.0.0/24")
def vpc_add(
    context: typer.Context,
    *,
    name: Name,
    vni: Vni,
    subnet: Subnets,
    router_mac: RouterMac = None,
    mtu: Mtu = None,
    dns: Dns = None,
    route: Routes = None,
) -> None:
    """Add a VPC."""
    words = {"vni": vni, "subnets": subnet, "router_mac": router_mac, "mtu": mtu, "dns": dns, "routes": route}
    _add(context, "Vpc", name, words)


@host.command("add", epilog="Example: lockgate host add host-a --vtep 192.0.2.1")
def host_add(
    context: typer.Context,
    *,
    name: Name,
    vtep: Vtep,
    encap: Encapsulation = None,
    guest_datapath: GuestDatapath = None,
    nic_datapath: NicDatapath = None,
    substrate_mtu: SubstrateMtu = None,
    bmc: Bmc = None,
) -> None:
    """Add a host. Unless given, its datapath ids are made from the VTEP: 00000067c0000201 for 192.0.2.1."""
    words = {"vtep": vtep, "encap": encap, "guest_datapath": guest_datapath, "nic_datapath": nic_datapath}
    _add(context, "Host", name, {**words, "substrate_mtu": substrate_mtu, "bmc": bmc})


@group.command("add", epilog='Example: lockgate group add web --vpc blue --rule "to_guest tcp 443 from any"')
def group_add(
    context: typer.Context, *, name: Name, vpc_name: VpcName, rule: Rules = None, stateless: Stateless = False
) -> None:
    """Add a group. Its ports receive only what a rule of one of their groups allows.

    They may send whatever they like, unless one of their groups has a from_guest rule: then only what such rules allow.
    A rule: to_guest or from_guest; any, tcp, udp, sctp, icmp or a protocol's number; a port or ports, like 8000-8100;
    from or to; any, an address, a network, or "group NAME".
    """
    words = {"vpc": vpc_name, "stateless": str(stateless).lower(), "rules": rule}
    _add(context, "SecurityGroup", name, words)


@group.command("allow", epilog='Example: lockgate group allow web "to_guest tcp 80 from 10.0.0.0/24"')
def group_allow(context: typer.Context, name: Name, rule: RuleArgument) -> None:
    """Add a rule to a group."""
    _refuse_unless(parse_rule, rule)
    _change_row(context, "SecurityGroup", name, lambda row: {**row, "rules": tuple(sorted({*_rules(row), rule}))})


@group.command("disallow", epilog='Example: lockgate group disallow web "to_guest tcp 80 from 10.0.0.0/24"')
def group_disallow(context: typer.Context, name: Name, rule: RuleArgument) -> None:
    """Take a rule out of a group. Connections that it alone allowed are cut at once."""

    def without(row: Row) -> Row:
        if rule not in _rules(row):
            raise RefusedError([f"group {name} has no rule {rule!r}: look with `lockgate group list`"])
        return {**row, "rules": tuple(each for each in _rules(row) if each != rule)}

    _change_row(context, "SecurityGroup", name, without)


def _rules(row: Row) -> tuple[str, ...]:
    return wanted.texts(row["rules"])


@port.command(
    "add",
    epilog="Example: lockgate port add web --vpc blue --mac 02:00:00:00:00:01 --host host-a --address 10.0.0.11",
)
def port_add(
    context: typer.Context,
    *,
    name: Name,
    vpc_name: VpcName,
    mac: Mac,
    host_name: OptionalHost = None,
    device: Device = None,
    address: Addresses = None,
    allow: Allowed = None,
    limit: LimitPairs = None,
    boot: BootPairs = None,
    group_name: Groups = None,
) -> None:
    """Add a port, with its addresses if given."""
    words = {"vpc": vpc_name, "mac": mac, "host": host_name, "device": device}
    _add(
        context,
        "Port",
        name,
        {**words, "allowed": allow, "limits": limit, "boot": boot, "groups": group_name},
        address or [],
    )


@port.command("set", epilog="Example: lockgate port set web --limit from_guest_kbps=100000 --limit to_guest_pps=9000")
def port_set(
    context: typer.Context,
    *,
    name: Name,
    allow: Allowed = None,
    limit: LimitPairs = None,
    boot: BootPairs = None,
) -> None:
    """Say anew what a port is allowed, limited to or told: each option given takes the place of all that was; or none.

    Example of the latter: lockgate port set web --limit none
    """
    given = {"allowed": allow, "limits": limit, "boot": boot}
    words = {word: [] if texts == ["none"] else texts for word, texts in given.items() if texts}
    if not words:
        raise MappingError(f"nothing to set of port {name}: give --allow, --limit or --boot")
    changes = _parse("Port", words)
    _change_port(context, name, lambda row: {**row, **changes})


@port.command("groups", epilog="Example: lockgate port groups web --group web --group ssh")
def port_groups(context: typer.Context, name: Name, group_name: Groups = None) -> None:
    """Make these the security groups of a port; without any it is open."""
    for each in group_name or []:
        _refuse_unless(values.parse_name, each)
    _change_row(context, "Port", name, lambda row: {**row, "groups": tuple(sorted(set(group_name or [])))})


@port.command("unbind", epilog="Example: lockgate port unbind web")
def port_unbind(context: typer.Context, name: Name) -> None:
    """Take a port off its host: its addresses then map nowhere, and packets to them are dropped."""
    _change_port(context, name, lambda row: {**row, **UNBOUND, "device": name})


@mapping.command("add", epilog="Example: lockgate mapping add blue 10.0.0.12 web")
def mapping_add(context: typer.Context, vpc_name: VpcArgument, ip: IpArgument, port_name: PortArgument) -> None:
    """Map an address of a VPC to a port."""
    _refuse_unless(values.parse_ip, ip)
    rows = wanted.empty()
    rows["Mapping"][vpc_name, ip] = {"port": port_name}
    carry_out(settings(context), lambda tables: plan.make(rows, tables, only_new=True))


@mapping.command("move", epilog="Example: lockgate mapping move blue 10.0.0.100 web-2")
def mapping_move(context: typer.Context, vpc_name: VpcArgument, ip: IpArgument, port_name: PortArgument) -> None:
    """Move an address to another port of the VPC, in one transaction."""
    _refuse_unless(values.parse_ip, ip)
    key = (vpc_name, ip)
    rows = wanted.empty()
    rows["Mapping"][key] = {"port": port_name}

    def make(tables: Tables) -> Plan:
        there, _ = wanted.named(tables)
        return plan.make(rows, tables) if key in there["Mapping"] else _none_such("Mapping", key, there["Mapping"])

    carry_out(settings(context), make)


@mapping.command("delete", epilog="Example: lockgate mapping delete blue 10.0.0.12")
def mapping_delete(context: typer.Context, vpc_name: VpcArgument, ip: IpArgument) -> None:
    """Delete a mapping: packets to the address are then dropped."""
    _delete(context, "Mapping", (vpc_name, ip))


@mapping.command("list", epilog="Example: lockgate mapping list")
def mapping_list(context: typer.Context) -> None:
    """List all mappings."""
    _list(context, "Mapping")


def _list_and_delete(table: str, app: typer.Typer) -> None:
    """The two commands that are the same for everything with a name."""
    word = "group" if table == "SecurityGroup" else table.lower()
    with_addresses = ", and the mappings of its addresses" if table == "Port" else ", unless ports need it"
    name = "VPC" if table == "Vpc" else word

    def list_all(context: typer.Context) -> None:
        _list(context, table)

    def delete(context: typer.Context, name: Name) -> None:
        _delete(context, table, (name,))

    app.command("list", help=f"List all {name}s.", epilog=f"Example: lockgate {word} list")(list_all)
    sample = {"Vpc": "blue", "Host": "host-a", "SecurityGroup": "web", "Port": "web"}[table]
    epilog = f"Example: lockgate {word} delete {sample}"
    app.command("delete", help=f"Delete a {name}{with_addresses}.", epilog=epilog)(delete)


for _table, _app in _APPS.items():
    _list_and_delete(_table, _app)


def _add(
    context: typer.Context,
    table: str,
    name: str,
    words: MappingABC[str, str | list[str] | None],
    addresses: list[str] | None = None,
) -> None:
    _refuse_unless(values.parse_name, name)
    row = _parse(table, words)
    if faults := list(wanted.complete(table, (name,), row)):
        raise RefusedError([fault.text for fault in faults])
    rows = wanted.empty()
    rows[table][name,] = row
    for ip in addresses or []:
        _refuse_unless(values.parse_ip, ip)
        rows["Mapping"][str(row["vpc"]), ip] = {"port": name}
    carry_out(settings(context), lambda tables: plan.make(rows, tables, only_new=True))


def _parse(table: str, words: MappingABC[str, str | list[str] | None]) -> Row:
    row: Row = {}
    problems: list[str] = []
    for word, text in words.items():
        field = FIELDS[table][word]
        try:
            if isinstance(text, list):
                row[field.column] = tuple(sorted({str(field.parse(item)) for item in text}))
            elif text is not None:
                row[field.column] = field.parse(text)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise RefusedError(problems)
    return row


def _change_port(context: typer.Context, name: str, change: Callable[[Row], Row]) -> None:
    _change_row(context, "Port", name, change)


def _change_row(context: typer.Context, table: str, name: str, change: Callable[[Row], Row]) -> None:
    def make(tables: Tables) -> Plan:
        there, _ = wanted.named(tables)
        known = there[table].get((name,))
        if known is None:
            return _none_such(table, (name,), there[table])
        rows = wanted.empty()
        row = rows[table][name,] = change(known)
        if faults := tuple(wanted.complete(table, (name,), row)):
            return Plan((), faults, ())
        return plan.make(rows, tables)

    carry_out(settings(context), make)


def _delete(context: typer.Context, table: str, key: Key) -> None:
    def make(tables: Tables) -> Plan:
        there, _ = wanted.named(tables)
        if key not in there[table]:
            return _none_such(table, key, there[table])
        absent = {(table, key)}
        if table == "Port":
            absent |= {("Mapping", address) for address, row in there["Mapping"].items() if row["port"] == key[0]}
        return plan.make(wanted.empty(), tables, absent=absent)

    carry_out(settings(context), make)


def _none_such(table: str, key: Key, there: dict[Key, Row]) -> Plan:
    return missing(table, key, cli_names.none_such(table, key, there))


def _list(context: typer.Context, table: str) -> None:
    options = settings(context)
    with Writer(options.remotes) as writer:
        there, _ = wanted.named(writer.read())
        if table == "Host":
            provision = writer.read_provision()
            for (host,), row in there["Host"].items():
                row.update(provision.get(host, dict.fromkeys(PROVISION)))
    show_rows(options, table, there[table])


def _refuse_unless(parse: Callable[[str], object], text: str) -> None:
    try:
        parse(text)
    except ValueError as error:
        raise RefusedError([error]) from None
