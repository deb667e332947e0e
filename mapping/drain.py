"""Where the ports of a host go when it is emptied. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from mapping import values
from mapping.wanted import Content, Fault, Key, Row


def spread(host: str, content: Content, to: Collection[str]) -> tuple[dict[Key, Row], list[Fault]]:
    """The ports of a host as they are on those of `to`, each on the one that then has the fewest; and those left over.

    A port fits where its device's name is free. With one place to go, what does not fit there is told by the plan. One
    that has begun to move goes where it is going.
    """
    load = Counter(dict.fromkeys(to, 0))
    taken: set[tuple[object, object]] = set()
    for row in content["Port"].values():
        for seat in (row["host"], row["moving_to"]):
            taken.add((seat, row["device"]))
            if seat in load:
                load[str(seat)] += 1
    moved: dict[Key, Row] = {}
    faults: list[Fault] = []
    for key, row in sorted(content["Port"].items()):
        if row["host"] != host:
            continue
        if len(to) > 1 and row["moving_to"] in load:
            moved[key] = {**row, "host": row["moving_to"], "moving_to": None, "previous_host": None}
            continue
        fitting = [name for name in load if len(to) == 1 or (name, row["device"]) not in taken]
        if not fitting:
            said = f"port {key[0]}: its device {row['device']} is taken wherever it could go: move it by itself"
            faults.append(Fault("Port", key, "host", said))
            continue
        there = min(fitting, key=lambda name: (load[name], name))
        load[there] += 1
        taken.add((there, row["device"]))
        moved[key] = {**row, "host": there, "moving_to": None, "previous_host": None}
    return moved, faults


def places(host: str, content: Content, live: Collection[str]) -> list[str]:
    """The hosts that ports of this one can go to: live ones, with a VTEP of the same version of IP.

    On one of the other version a port would be cut off from the rest of its VPC.
    """

    def version(name: str) -> int:
        return values.parse_vtep_ip(str(content["Host"][name,]["vtep_ip"])).version

    return sorted(
        name for (name,) in content["Host"] if name in live and name != host and version(name) == version(host)
    )
