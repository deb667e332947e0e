"""How traces, explanations and audits are shown to people, and what they are as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from rich.text import Text

from explain import ofproto
from explain.audit import MEANING, Finding
from explain.origin import Row, in_words
from explain.packet import Packet
from explain.site import Met
from explain.trace import Trace
from mapping.cli_common import console, show_table

_STYLES: Final = {"delivered": "green", "answered": "green", "dropped": "red", "lost": "red"}
_COUNTED: Final = ("packets", "bytes", "age")


def show_places(cookie: int, places: list[dict[str, Any]]) -> None:
    out = console()
    if not places:
        mark = "" if ofproto.is_ours(cookie) else ", and it has not Lockgate's mark"
        out.print(f"{cookie:#x}: no host has, or should have, a flow with this cookie{mark}", soft_wrap=True)
        return
    for (bridge, flow), here in _grouped(places).items():
        first = here[0]
        if first["desired"]:
            out.print(Text(f"{bridge} {first['table']}", "bold"), Text(first["words"]), soft_wrap=True)
            out.print(Text(f"because of {in_words(row for place in here for row in place['rows'])}"), soft_wrap=True)
        else:
            out.print(Text(f"{bridge}: the database does not ask for it", "yellow"), soft_wrap=True)
        out.print(Text(flow, "dim"), soft_wrap=True)
        lines = (
            (place["host"], _installed(place), *("" if place[key] is None else str(place[key]) for key in _COUNTED))
            for place in here
        )
        show_table(("host", "installed", "packets", "bytes", "seconds old"), lines)


def _installed(place: dict[str, Any]) -> str:
    if place["installed"] is None:
        return str(place["problem"])
    return "yes" if place["installed"] else "no: look with `lockgate audit`"


def _grouped(places: list[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for place in places:
        key = place["flow"] if place["desired"] else f"on {place['host']}: {place['flow']}"
        groups.setdefault((place["bridge"], key), []).append(place)
    return groups


def show_trace(made: Trace, sent: Packet, notes: list[str]) -> None:
    out = console()
    out.print(Text(sent.at(), "dim"), soft_wrap=True)
    at = ("", "")
    for met in made.met:
        if (met.host, met.step.bridge) != at:
            at = (met.host, met.step.bridge)
            out.print(Text(f"\n{met.host} {met.step.bridge}", "bold"))
        style = "" if met.ours else "yellow"
        out.print(Text.assemble(f"  {met.step.table:<12} ", (met.words, style)), soft_wrap=True)
        out.print(Text(f"  {'':<12} {_behind(met)}", "dim"), soft_wrap=True)
        for note in met.step.notes:
            out.print(Text(f"  {'':<12} {note}", "dim"), soft_wrap=True)
    out.print(Text(f"\n{made.text}", _STYLES[made.verdict]), soft_wrap=True)
    for line in filter(None, (made.mend, *notes)):
        out.print(Text(line, "yellow"), soft_wrap=True)


def _behind(met: Met) -> str:
    cookie = "" if met.step.cookie is None else f"cookie {met.step.cookie:#x}, "
    return f"{cookie}{in_words(met.rows) or 'no row'}"


def show_audit(findings: list[Finding], mended: int, asked: int, failed: dict[str, str]) -> None:
    out = console()
    for each in findings:
        place = f"{each.host} {each.bridge} {each.table}"
        out.print(
            Text(f"{each.kind} at {place}: {in_words(each.rows) or 'no row asks for it'}", "yellow"), soft_wrap=True
        )
        for sign, flow, style in (("-", each.installed, "red"), ("+", each.desired, "green")):
            if flow:
                out.print(Text(f"  {sign} {flow}", style), soft_wrap=True)
    for problem in failed.values():
        out.print(Text(problem, "red"), soft_wrap=True)
    counts = Counter(each.kind for each in findings)
    for kind, count in counts.items():
        out.print(Text(f"{count} {kind}: {MEANING[kind]}"), soft_wrap=True)
    if mended:
        out.print(Text(f"{mended} mended", "green"))
    elif any(each.kind != "stranger" for each in findings):
        out.print(Text("--mend makes the switches hold what the database says", "yellow"))
    if not findings:
        out.print(Text(f"{asked} host(s) hold what the database says", "yellow" if failed else "green"))


def _rows_as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [{"table": row.table, "key": list(row.key), "text": row.text} for row in rows]


def trace_as_json(made: Trace, sent: Packet, notes: list[str]) -> dict[str, Any]:
    met = [
        {
            "host": each.host,
            "bridge": each.step.bridge,
            "table": each.step.table,
            "cookie": None if each.step.cookie is None else f"{each.step.cookie:#x}",
            "flow": str(each.step),
            "notes": list(each.step.notes),
            "words": each.words,
            "rows": _rows_as_json(each.rows),
            "as_desired": each.ours,
        }
        for each in made.met
    ]
    ends = {"verdict": made.verdict, "reason": made.reason, "text": made.text, "mend": made.mend, "notes": notes}
    return {"packet": sent.at(), "met": met, **ends}


def place_as_json(place: dict[str, Any]) -> dict[str, Any]:
    return {**place, "rows": _rows_as_json(place["rows"])}


def finding_as_json(each: Finding) -> dict[str, Any]:
    return {
        "host": each.host,
        "bridge": each.bridge,
        "table": each.table,
        "kind": each.kind,
        "cookie": f"{each.cookie:#x}",
        "installed": each.installed,
        "desired": each.desired,
        "rows": _rows_as_json(each.rows),
    }
