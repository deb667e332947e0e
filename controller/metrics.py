"""What the controller knows of itself and of its switches, for Prometheus: text at http://ADDRESS/metrics.

Off unless LOCKGATE_METRICS names an address, which must be one of the control network: whoever reaches it reads the
names of all that this controller serves. It is read-only, and a scrape is made in slices, so that nothing else waits
for it. The names and labels of everything are in docs/operating.md, and docs/grafana.json shows them.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from ipaddress import ip_address
from typing import Any, Final, NamedTuple

from prometheus_client import Histogram, ProcessCollector, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector
from ryu.lib import hub

from controller.counters import FROM_GUEST, TO_GUEST, Counters, PortCounters

log = logging.getLogger(__name__)

_SLICE: Final = 200
"""Lines that are written without a pause: some 2 ms."""
_CLIENTS: Final = 32
_PATIENCE: Final = 10
"""Scrapes at a time, and seconds for which one may stand still."""
_BUCKETS: Final = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)

disable_created_metrics()  # type: ignore[no-untyped-call]  # the one function of the library without types


class BridgeState(NamedTuple):
    """One bridge of a host that is served."""

    host: str
    bridge: str
    connected: bool
    reconnects: int
    flows: int
    waiting: int
    """Addresses whose flows are still to be made."""
    mended: int


class State(NamedTuple):
    """The controller at one moment."""

    in_sync: bool
    current: bool
    lag: float
    """Seconds since the copy of the database was known to be current."""
    reconnects: int
    """To the database."""
    config_seq: int
    rows: dict[str, int]
    """By table."""
    bad: int
    refused: int
    """Datapaths that are connected, and not served: see `controller.fleet`."""
    applied: dict[str, int]
    bridges: Sequence[BridgeState]


class Metrics(Collector):
    """`state` is asked at each scrape; `changed` is told how long each change took."""

    def __init__(self, state: Callable[[], State], counters: Counters) -> None:
        self._state = state
        self._counters = counters
        self._process = ProcessCollector(registry=None)
        self._change = Histogram(
            "lockgate_change_seconds",
            "From when news of the database arrived until a switch had confirmed all that they change",
            buckets=_BUCKETS,
            registry=None,
        )

    def changed(self, seconds: float) -> None:
        """A switch has confirmed what arrived so long ago."""
        self._change.observe(seconds)

    def collect(self) -> Iterator[Metric]:
        """Every metric, as Prometheus's library wants them."""
        yield from self._process.collect()
        yield from self._change.collect()
        state = self._state()
        yield from _of_database(state)
        yield from _of_bridges(state)
        yield from _of_hosts(self._counters)
        yield from _of_ports(self._counters)

    def serve(self, address: tuple[str, int]) -> list[Any]:
        """Answer scrapes; returns the greenlets. Without the address the controller goes on, and says so."""
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        try:
            listening = hub.listen(address, family, reuse_port=False)
        except OSError as error:
            log.error(  # noqa: TRY400 - it says all
                "metrics: cannot listen at %s port %d: %s; going on without", *address, error.strerror
            )
            return []
        log.info("metrics: http://%s:%d/metrics", f"[{address[0]}]" if ":" in address[0] else address[0], address[1])
        options = {"log_output": False, "max_size": _CLIENTS, "socket_timeout": _PATIENCE, "keepalive": False}
        return [hub.spawn(hub.eventlet.wsgi.server, listening, self._answer, **options)]

    def _answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] != "GET" or environ["PATH_INFO"] != "/metrics":
            start("404 Not Found", [("Content-Type", "text/plain")])
            return [b"GET /metrics\n"]
        start("200 OK", [("Content-Type", CONTENT_TYPE_PLAIN_0_0_4)])
        return text(self.collect())


def listen_address(text: str) -> tuple[str, int]:
    """Where to listen, as in "198.51.100.1:9464" or "[fd00::1]:9464".

    Raises:
        ValueError: it is no address and port, or the address is every network's.
    """
    host, _, port = text.rpartition(":")
    try:
        ip = ip_address(host.removeprefix("[").removesuffix("]"))
        number = int(port) if port.isascii() and port.isdigit() else 0
    except ValueError:
        ip, number = None, 0
    if ip is None or not 0 < number < 1 << 16:
        raise ValueError(f"LOCKGATE_METRICS={text}: write IP:PORT, like 198.51.100.1:9464")
    if ip.is_unspecified:
        raise ValueError(f"LOCKGATE_METRICS={text}: that is every network: name this host's address on the control one")
    return str(ip), number


def text(families: Iterable[Metric]) -> Iterator[bytes]:
    """The metrics as Prometheus reads them, in slices, between which others have their turn."""
    for family in families:
        samples = family.samples
        for start in range(0, len(samples) or 1, _SLICE):
            part = Metric(family.name, family.documentation, family.type)
            part.samples = samples[start : start + _SLICE]
            lines = generate_latest(_Just(part))
            yield (
                lines
                if not start
                else b"".join(line for line in lines.splitlines(keepends=True) if not line.startswith(b"#"))
            )
            hub.sleep(0)


class _Just(Collector):
    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterable[Metric]:
        return [self._family]


def _gauge(name: str, what: str, value: float) -> Metric:
    return GaugeMetricFamily(name, what, value)


def _of_database(state: State) -> Iterator[Metric]:
    yield _gauge("lockgate_in_sync", "1 once the first complete load of the mapping database is done", state.in_sync)
    yield _gauge("lockgate_database_current", "1 while the copy follows the database", state.current)
    yield _gauge("lockgate_database_lag_seconds", "Since the copy was last known to be current", state.lag)
    yield CounterMetricFamily("lockgate_database_reconnects", "Connections to it after the first", state.reconnects)
    yield _gauge("lockgate_config_seq", "Number of the last change that was read whole", state.config_seq)
    yield _gauge("lockgate_bad_rows", "Rows that cannot be used and map nowhere", state.bad)
    yield _gauge("lockgate_refused_datapaths", "Switches that are connected and not served", state.refused)
    rows = GaugeMetricFamily(
        "lockgate_rows", "Rows that are followed, by table: Mapping has the mappings", labels=["table"]
    )
    for table, count in state.rows.items():
        rows.add_metric([table], count)
    yield rows
    applied = GaugeMetricFamily("lockgate_applied_seq", "The change that both bridges of a host hold", labels=["host"])
    for host, seq in state.applied.items():
        applied.add_metric([host], seq)
    yield applied


def _of_bridges(state: State) -> Iterator[Metric]:
    labels = ["host", "bridge"]
    connected = GaugeMetricFamily("lockgate_switch_connected", "1 while the bridge is connected", labels=labels)
    reconnects = CounterMetricFamily("lockgate_switch_reconnects", "Its connections after the first", labels=labels)
    flows = GaugeMetricFamily("lockgate_flows", "Flows that it should hold", labels=labels)
    waiting = GaugeMetricFamily("lockgate_queue_depth", "Addresses whose flows wait to be made", labels=labels)
    mended = CounterMetricFamily("lockgate_mended_flows", "Flows put back that others had changed", labels=labels)
    for each in state.bridges:
        where = [each.host, each.bridge]
        connected.add_metric(where, each.connected)
        reconnects.add_metric(where, each.reconnects)
        flows.add_metric(where, each.flows)
        waiting.add_metric(where, each.waiting)
        mended.add_metric(where, each.mended)
    yield from (connected, reconnects, flows, waiting, mended)


def _of_hosts(counters: Counters) -> Iterator[Metric]:
    dropped = CounterMetricFamily("lockgate_dropped_packets", "Packets dropped, by reason", labels=["host", "reason"])
    for host in counters.hosts.values():
        for reason, packets in host.drops.items():
            dropped.add_metric([host.name, reason], packets)
    yield dropped


def _of_ports(counters: Counters) -> Iterator[Metric]:
    ports = [(host.name, name, port) for host in counters.hosts.values() for name, port in host.ports.items()]
    for unit, counts in (("packets", _packets), ("bytes", _bytes)):
        labels = ["host", "vpc", "port"]
        passed = CounterMetricFamily(
            f"lockgate_port_{unit}",
            f"{unit.capitalize()} of a port's guest, by direction",
            labels=[*labels, "direction"],
        )
        dropped = CounterMetricFamily(
            f"lockgate_port_dropped_{unit}",
            f"{unit.capitalize()} from it that were dropped",
            labels=[*labels, "reason"],
        )
        for host, name, port in ports:
            for what, count in counts(port).items():
                family = passed if what in (FROM_GUEST, TO_GUEST) else dropped
                family.add_metric([host, port.vpc, name, what], count)
        yield from (passed, dropped)


def _packets(port: PortCounters) -> dict[str, int]:
    return port.packets


def _bytes(port: PortCounters) -> dict[str, int]:
    return port.bytes
