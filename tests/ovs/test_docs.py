"""The documents tell what there is: dumps, traces and frames in them come from these switches, and are compared.

To write them anew:  LOCKGATE_WRITE_DOCS=1 .venv/bin/python -m pytest tests/ovs/test_docs.py

What is shown stands between `<!-- shown: KIND ARGUMENTS -->` and `<!-- end -->`. Of what the switches print, that is
left out which says nothing (cookies, ids of frozen packets; in dumps the table, which the arguments name), flows are
sorted, long lines are folded, and of the 48 rules for the wrong bits of a MAC the first and the last are shown.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from flows.pipeline import BR_GUEST, FILTERED, METERED, TABLES, UPLINK_FILTERED, Reason, reasons
from mapping import document
from tests.build import WEB
from tests.ovs import test_forwarding, test_ipv6, test_ipv6_substrate
from tests.ovs.conftest import World
from tests.ovs.dummy import DummyHost
from topo.waiting import wait_until

ROOT = Path(__file__).parents[2]
DOCS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
SHOWN = re.compile(r"(?<=<!-- shown: )(?P<what>[^\n]+?) -->\n(?P<text>.*?)(?=<!-- end -->)", re.DOTALL)
WIDTH = 116
WRITE = "LOCKGATE_WRITE_DOCS"
HOW = f"to write the documents anew: {WRITE}=1 .venv/bin/python -m pytest tests/ovs/test_docs.py"

# The bytes that come before the inner frame when web (host-a) sends to db (host-b, which wants Geneve).
OUTER = (
    (6, "Ethernet: to the MAC of host-b's VTEP"),
    (6, "from the MAC of host-a's VTEP"),
    (2, "type: IPv4"),
    (2, "IPv4: version 4, header of 5 words, no class"),
    (2, "length"),
    (2, "identification"),
    (2, "don't fragment"),
    (1, "TTL 64"),
    (1, "protocol: UDP"),
    (2, "checksum of the header"),
    (4, "from host-a's VTEP address"),
    (4, "to the VTEP address that the mapping names"),
    (2, "UDP: source port, a hash of the inner addresses and ports"),
    (2, "to port 6081: Geneve, RFC 8926"),
    (2, "length"),
    (2, "no checksum"),
    (2, "Geneve: version 0, no options"),
    (2, "what follows is an Ethernet frame"),
    (3, "VNI 5001: VPC blue"),
    (1, "reserved"),
)
INNER = ((6, "to db's MAC: set by PUSH"), (6, "from web's MAC"), (2, "type: IPv4"))
UDP_SOURCE = range(34, 36)


def host(world: World, name: str) -> DummyHost:
    return {"host-a": world.a, "host-b": world.b}[name]


def fold(line: str) -> str:
    """The line cut after commas, where it is long."""
    folded = [""]
    for part in re.findall(r"[^,]*,?", line):
        if len(folded[-1]) + len(part) > WIDTH and folded[-1].strip():
            folded.append("    ")
        folded[-1] += part
    return "\n".join(folded)


def fenced(lines: list[str]) -> str:
    return "\n".join(["```", *map(fold, lines), "```", ""])


def dump(world: World, name: str, bridge: str, table: str) -> str:
    """The flows of a table, as ovs-ofctl prints them."""
    printed = host(world, name).ovs.ofctl("dump-flows", bridge, f"table={table}", "--no-stats").splitlines()
    flows = sorted(re.sub(r'^ *cookie=\w+, table="?\w+"?, ', "", line) for line in printed if "cookie=" in line)
    flows.sort(key=lambda flow: -int(flow.split("priority=")[1].partition(" ")[0].partition(",")[0]))
    bits = [flow for flow in flows if re.match(r"priority=(200|1[5-9]\d),", flow)]
    if bits:
        assert len(bits) == 48
        flows = [bits[0], "...  46 more, of priority 199 to 154: one for each bit", bits[-1], *flows[48:]]
    return fenced(flows)


def trace(world: World, name: str, bridge: str, packet: str) -> str:
    """What ofproto/trace says of a packet."""
    printed = host(world, name).ovs.appctl("ofproto/trace", bridge, packet, "--names")
    # Cookies are left out, and a number that each packet to the controller has of its own.
    own = r", cookie 0x\w+|(?<=continuation=0),recirc_id=\d+,rule_cookie=0x\w+"
    return fenced([re.sub(own, "", line) for line in printed.strip().splitlines()])


def frame(world: World) -> str:
    """A ping from web to db as it is on the substrate, field by field."""
    sent = Ether(src=WEB.mac, dst="0a:00:5e:00:00:01") / IP(src="10.0.0.11", dst="10.0.0.12") / ICMP() / Raw(b"a life")
    world.a.receive("web", bytes(sent))

    def seen() -> list[bytes]:
        return [frame for frame in world.a.sent("uplink") if b"a life" in frame]

    wait_until(lambda: bool(seen()), 10, "the frame on the uplink")
    wire = seen()[0]
    lines, at = [], 0
    for length, meaning in (*OUTER, *INNER):
        shown = ".. .." if range(at, at + length) == UDP_SOURCE else wire[at : at + length].hex(" ")
        lines.append(f"{shown:20}{meaning}")
        at += length
    assert wire[at:] == bytes(sent)[14:], "something else than the pipeline says was changed"
    lines.append(f"{wire[at : at + 4].hex(' ')} ...     the rest, as web sent it")
    return fenced(lines)


def facts(_: World, bridge: str, name: str) -> str:
    """What flows/pipeline.py says of a table."""
    table = TABLES[bridge][name]
    matches = ", ".join(f"`{field}`" for field in sorted(map(str, table.match)))
    exits = [*sorted(table.exits, key=lambda name: TABLES[bridge][name].number), *(["a port"] if table.outputs else [])]
    lines = [f"Table {table.number}. {table.job}", "", f"- Matches on {matches}.", f"- Lets on to {', '.join(exits)}."]
    if not exits:
        del lines[-1]
    if table.miss:
        lines.append(f"- Miss: `{table.miss.label}`, {table.miss.meaning}.")
    named = sorted(table.named_misses, key=lambda reason: reason.number)
    lines += [f"- Tells apart: `{reason.label}`, {reason.meaning}." for reason in named]
    return "\n".join([*lines, ""])


ELSEWHERE = {
    **dict.fromkeys(METERED, f"a meter of {BR_GUEST}"),
    **dict.fromkeys(FILTERED, "the filter ahead of the port"),
    **dict.fromkeys(UPLINK_FILTERED, "the filter ahead of the uplink"),
}


def all_reasons(_: World) -> str:
    """Every reason to drop."""
    lines = ["| `reg1` | reason | dropped because | by |", "|---|---|---|---|"]
    for reason in Reason:
        by = [bridge for bridge in TABLES if reason in reasons(bridge)]
        number = f"{reason.number:#x}" if by else ""
        by = by or [ELSEWHERE[reason]]
        lines.append(f"| {number} | `{reason.label}` | {reason.meaning} | {', '.join(by)} |")
    return "\n".join([*lines, ""])


KINDS: dict[str, Callable[..., str]] = {
    "dump": dump,
    "facts": facts,
    "frame": frame,
    "reasons": all_reasons,
    "trace": trace,
}


def shown(path: Path) -> Iterator[tuple[str, str]]:
    return ((found["what"], found["text"]) for found in SHOWN.finditer(path.read_text()))


def is_so(world: World, what: str) -> str:
    kind, *arguments = what.split()
    return KINDS[kind](world, *arguments)


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_what_a_document_shows_is_so(world: World, path: Path) -> None:
    if os.environ.get(WRITE):
        text = SHOWN.sub(lambda found: f"{found['what']} -->\n{is_so(world, found['what'])}", path.read_text())
        path.write_text(text)
    for what, text in shown(path):
        assert text == is_so(world, what), f"{path.name}, {what}: it is not so; {HOW}"


def test_the_pipeline_is_documented_whole() -> None:
    found = {what for what, _ in shown(ROOT / "docs" / "pipeline.md")}
    for bridge, tables in TABLES.items():
        for name in tables:
            assert {f"facts {bridge} {name}", f"dump host-a {bridge} {name}"} <= found
    assert "reasons" in found


def test_every_attack_that_is_tried_is_in_the_security_document() -> None:
    text = (ROOT / "docs" / "security.md").read_text()
    named = set(re.findall(r"`([^`\n]+)`", text))
    assert {*test_forwarding.FROM_GUEST, *test_forwarding.FROM_SUBSTRATE} <= named
    assert {*test_ipv6.FROM_GUEST, *test_ipv6.FROM_SUBSTRATE, *test_ipv6_substrate.FROM_SUBSTRATE} <= named
    code = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert {name for name in named if name.startswith("test_")} <= set(re.findall(r"^def (\w+)", code, re.MULTILINE))


def test_the_readmes_mapping_is_a_part_of_the_example() -> None:
    example = ROOT / "examples" / "two-hosts.yaml"
    (text,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    whole = document.read(example.read_bytes(), str(example))
    part = document.read(text.encode(), "README.md")
    assert not part.problems
    for table, rows in part.rows.items():
        assert rows or table == "SecurityGroup"
        assert rows.items() <= whole.rows[table].items()


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        file, _, anchor = target.partition("#")
        linked = path.parent / file if file else path
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}, target


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 120
