"""How things are, from the database alone: what controllers report there of each host. Pure; the time is given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from collections.abc import Mapping as MappingABC
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from mapping import reach, rows
from mapping.model import BadRow, Snapshot
from mapping.rows import READ_COLUMNS, STATUS_COLUMNS, Row, Tables

COLUMNS: Final = {table: (*names, *STATUS_COLUMNS.get(table, ())) for table, names in READ_COLUMNS.items()}
"""What a replica must follow for `report`."""

HOST_COLUMNS: Final = {table: COLUMNS[table] for table in ("Global", "Host")}
"""What a replica must follow for `confirmations`."""

QUIET_SECONDS: Final = 30
"""A controller that has said nothing of a host for so long is taken for gone: it reports every ten seconds."""

WATCH_SECONDS: Final = 12.0
"""For how long one that waits looks for a new report before it takes a host for quiet."""

_NEVER: Final = (
    "no controller has ever reported: start `ryu-manager controller.app`, "
    "and look whether the bridges have the datapath ids of the Host row"
)
_QUIET: Final = (
    "the last flows stay; look whether ryu-manager runs and reaches the database, "
    "and whether this machine's clock is ahead of the controllers'"
)


@dataclass(frozen=True, slots=True)
class HostStatus:
    """One host, as its controller last reported it.

    `guest` and `nic` are "connected", "absent", or "unknown" before any report; `heard` is how many seconds ago that
    report was, by the clocks of the controller and of this machine; `lag` is by how many changes the host is behind;
    `drops` counts packets by reason.

    A stolen host key writes what it likes: no text has characters that a terminal would obey, or a line of its own.
    """

    name: str
    vtep_ip: str
    encap: str
    guest: str
    nic: str
    controller: str
    heard: int | None
    applied_seq: int
    lag: int
    problem: str
    drops: dict[str, int]

    @property
    def connected(self) -> bool:
        """Whether a controller served both its bridges when it last said something."""
        return self.guest == self.nic == "connected" and self.heard is not None

    @property
    def live(self) -> bool:
        """Whether a controller serves both its bridges now, so that changes can be expected to arrive."""
        return self.connected and self.heard is not None and self.heard <= QUIET_SECONDS


class HeardHosts:
    """Which hosts are heard while one waits: those whose report changes, whatever their clocks say."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}
        self._begun: float | None = None
        self._now = 0.0
        self._heard: dict[str, float] = {}

    def look(self, tables: Tables, now: float) -> None:
        """Take in what controllers say now; `now` in seconds, by a clock that nobody sets."""
        self._begun, self._now = now if self._begun is None else self._begun, now
        for row in tables["Host"].values():
            name, said = row["name"], rows.as_dict(row["status"]).get("heard", "")
            if self._said.setdefault(name, said) != said:
                self._said[name], self._heard[name] = said, now

    def may_be_heard(self, name: str) -> bool:
        """Whether the host was heard, or there was not yet time to tell."""
        since = self._heard.get(name)
        if since is not None:
            return self._now - since <= QUIET_SECONDS
        return self._begun is None or self._now - self._begun < WATCH_SECONDS


@dataclass(frozen=True, slots=True)
class Confirmation:
    """Whether a host has confirmed a change, and if it has not, `why`, in words that say what to do.

    `ms` is after how many milliseconds its report arrived; None if none did, or if that was not measured.
    """

    host: str
    state: Literal["applied", "not live", "late"]
    ms: int | None
    why: str


@dataclass(frozen=True, slots=True)
class Report:
    """The whole picture.

    `summary` says in words what is wrong and what to do, worst first; `notes` what is not wrong and may yet be why
    something does not work.
    """

    summary: tuple[str, ...]
    notes: tuple[str, ...]
    ok: bool
    config_seq: int
    hosts: tuple[HostStatus, ...]
    counts: dict[str, int]
    bad: tuple[BadRow, ...]


Provisions = MappingABC[str, MappingABC[str, str | None]]
"""Host -> what is known of its provisioning (`mapping.writer.PROVISION`)."""


def report(tables: Tables, snapshot: Snapshot, now: float, provisions: Provisions = MappingProxyType({})) -> Report:
    """The report on a database that holds `tables`; `snapshot` is what is valid of them; `now` in unix seconds."""
    config_seq = snapshot.config_seq
    hosts = tuple(
        sorted((of_host(row, config_seq, now) for row in tables["Host"].values()), key=lambda host: host.name)
    )
    bad = Counter(row.table for row in snapshot.bad)
    held = {
        "Vpc": snapshot.vpcs,
        "Host": snapshot.hosts,
        "SecurityGroup": snapshot.groups,
        "Port": snapshot.ports,
        "Mapping": snapshot.mappings,
    }
    counts = {table: len(rows) + bad[table] for table, rows in held.items()}
    problems = [*_failed(provisions), *_absent(hosts), *_behind(hosts), *_reported(hosts), *_bad(snapshot.bad)]
    problems += reach.in_snapshot(snapshot)
    summary = problems or [_fine(hosts, config_seq)]
    return Report(tuple(summary), _notes(snapshot), not problems, config_seq, hosts, counts, snapshot.bad)


def confirmations(  # noqa: PLR0913, PLR0917 - what one looks at, and what one has seen before
    tables: Tables,
    config_seq: int,
    names: Collection[str],
    ms: MappingABC[str, int],
    now: float,
    heard: HeardHosts | None = None,
) -> tuple[Confirmation, ...]:
    """How far these hosts are with the change that has this number: who was slowest, or failed, comes last.

    `ms` is what was measured, by host. A host without a row is left out: nobody reports of it any more. With `heard`, a
    host that is quiet by `now` alone is "late" until it has been watched for long enough.
    """
    hosts = (of_host(row, config_seq, now) for row in tables["Host"].values() if row["name"] in names)
    found = [_confirmation(host, ms.get(host.name), heard) for host in hosts]
    order = ("applied", "not live", "late")
    return tuple(sorted(found, key=lambda each: (order.index(each.state), each.ms or 0, each.host)))


def _confirmation(host: HostStatus, ms: int | None, heard: HeardHosts | None) -> Confirmation:
    if not host.lag:
        return Confirmation(host.name, "applied", ms, "")
    if host.live or (host.connected and heard and heard.may_be_heard(host.name)):
        late = f"{host.lag} change(s) not applied yet: look again in a second"
        return Confirmation(host.name, "late", None, host.problem or late)
    if host.heard is None:
        return Confirmation(host.name, "not live", None, _NEVER)
    quiet = f"no report for {host.heard} s: {_QUIET}" if host.heard > QUIET_SECONDS else ""
    return Confirmation(host.name, "not live", None, quiet or _disconnected(host))


def of_host(row: Row, config_seq: int, now: float) -> HostStatus:
    """What its row says of a host, at `now` in unix seconds."""
    said: dict[str, str] = {key: printable(text) for key, text in rows.as_dict(row["status"]).items()}
    drops = Counter[str]()
    for reason, packets in rows.as_dict(row["drops"]).items():
        drops[printable(reason)] += packets
    heard = said.get("heard", "")
    return HostStatus(
        row["name"],
        row["vtep_ip"],
        row["encap"],
        said.get("guest", "unknown"),
        said.get("nic", "unknown"),
        said.get("controller", ""),
        max(0, int(now) - int(heard)) if heard.isascii() and heard.isdigit() and len(heard) < 12 else None,
        row["applied_seq"],
        max(0, config_seq - row["applied_seq"]),
        said.get("problem", ""),
        dict(drops.most_common()),
    )


def printable(text: str) -> str:
    """A text of somebody who need not be honest, without what a terminal would obey, on one line."""
    return "".join(char if char.isprintable() else "?" for char in text)


def _failed(provisions: Provisions) -> list[str]:
    """First of all: a port was closed, or could not be, and its tenant has noticed by now."""
    return [
        f"host {host}, for port {found['port'] or 'none'}: "
        + printable(found["problem"] or "provisioning failed, look with `lockgate host list`")
        for host, found in sorted(provisions.items())
        if found["state"] == "failed"
    ]


def _absent(hosts: tuple[HostStatus, ...]) -> list[str]:
    problems = []
    if never := [host.name for host in hosts if host.heard is None]:
        problems.append(f"{in_words(never)}: {_NEVER}")
    if quiet := [host.name for host in hosts if host.heard is not None and host.heard > QUIET_SECONDS]:
        problems.append(f"{in_words(quiet)}: no report for over {QUIET_SECONDS} s: {_QUIET}")
    lost = (host for host in hosts if host.heard is not None and host.heard <= QUIET_SECONDS and not host.live)
    return problems + _together((host.name, _disconnected(host)) for host in lost)


def _disconnected(host: HostStatus) -> str:
    bridges = (("guest", host.guest), ("NIC", host.nic))
    lost = " and ".join(f"its {kind} bridge" for kind, state in bridges if state != "connected")
    return (
        f"{lost} not connected to the controller: the last flows stay; "
        "look whether ovs-vswitchd runs there and the control channel is up"
    )


def _behind(hosts: tuple[HostStatus, ...]) -> list[str]:
    behind = [f"{host.name} ({host.lag})" for host in hosts if host.live and host.lag]
    if not behind:
        return []
    return [f"{in_words(behind)}: some changes are not applied yet (how many, in brackets): look again in a second"]


def _reported(hosts: tuple[HostStatus, ...]) -> list[str]:
    return _together((host.name, host.problem) for host in hosts if host.problem)


def _together(said: Iterable[tuple[str, str]]) -> list[str]:
    """One line for all hosts of which the same is said."""
    hosts: dict[str, list[str]] = {}
    for host, text in said:
        hosts.setdefault(text, []).append(host)
    return [
        f"{in_words(names)}: {text if len(names) == 1 else text.replace('its ', 'their ')}"
        for text, names in hosts.items()
    ]


def _notes(snapshot: Snapshot) -> tuple[str, ...]:
    notes = []
    ports = snapshot.ports.values()
    if unbound := sorted(port.name for port in ports if port.host is None):
        notes.append(f"port(s) {some(unbound)} on no host, so unreachable: `lockgate port move` gives them one")
    mapped = {mapping.port for mapping in snapshot.mappings.values()}
    if bare := sorted(port.name for port in ports if port.uuid not in mapped):
        notes.append(f"port(s) {some(bare)} without an address: `lockgate mapping add` gives them one")
    return tuple(notes)


def _bad(bad: tuple[BadRow, ...]) -> list[str]:
    if not bad:
        return []
    return [f"{len(bad)} row(s) cannot be used and map nowhere, the rest works: mend what is listed as bad"]


def _fine(hosts: tuple[HostStatus, ...], config_seq: int) -> str:
    if not hosts:
        return "The database answers, and knows no host yet: add some with `lockgate apply -f FILE`."
    return f"All is well: every host has applied config_seq {config_seq}."


def in_words(names: list[str]) -> str:
    """Some of these hosts, and how many more."""
    return f"host {some(names)}" if len(names) == 1 else f"hosts {some(names)}"


def some(names: list[str]) -> str:
    """Some of these, and how many more."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
