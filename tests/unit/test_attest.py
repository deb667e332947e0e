"""What a host in wrong hands prints is a fault of it, and what cannot be mended is said all the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import pytest

from mapping.errors import MappingError
from mapping.history import Cause
from mapping.model import Snapshot
from mapping.writer import Writer
from provision import attest
from provision.record import Ledger
from provision.site import Site
from provision.watch import Alarm, Mend, Policy, Watcher
from tests.build import host, port, snapshot, vpc

HOST = host("host-a", "192.0.2.1")


def printed(value: object) -> str:
    """What ovs-vsctl prints of one row a table, with this in every column."""
    tables = ({"headings": columns, "data": [[value] * len(columns)]} for columns in attest.LISTED.values())
    return "\n".join(map(json.dumps, tables))


@pytest.mark.parametrize(
    "junk",
    [
        "",
        "hello",
        "[]\n" * len(attest.LISTED),
        "{}\n" * len(attest.LISTED),
        "[" * 100_000,
        printed("br-nic"),
        printed(["set", 1]),
        printed([]),
    ],
)
def test_junk_is_one_clear_error(junk: str) -> None:
    with pytest.raises(MappingError, match="in wrong hands"):
        attest.faults(attest.read(junk), HOST)


class _Site(Site):
    def snapshot(self) -> Snapshot:
        return snapshot(HOST)


class _Watcher(Watcher):
    def _wrong(self, *_: object) -> dict[str, Mend]:
        return {"one": _refused, "two": lambda: "mended"}


def _refused() -> str:
    raise MappingError("the switch refuses")


def test_what_cannot_be_mended_is_said_once_and_hinders_nothing_else() -> None:
    nobody = cast("Writer", None)
    watcher = _Watcher(_Site(nobody, "env", Cause("test", "", "")), Ledger(nobody), "host-a", Policy.MEND)
    two = Alarm("host-a", "two", "mended")
    assert list(watcher.look()) == [Alarm("host-a", "one", "not mended: the switch refuses"), two]
    assert list(watcher.look()) == [two]


class _Stubborn(Site):
    """One of its two ports cannot be unbound. What is said to ovs-vsctl before any is, it remembers."""

    unbound: tuple[str, ...] = ()
    before: str = ""

    def snapshot(self) -> Snapshot:
        blue = vpc("blue", 5001)
        return snapshot(HOST, blue, *(port(name, blue, f"02:00:00:00:00:0{name[1]}", HOST) for name in ("p1", "p2")))

    def unbind(self, port: str, *_: object) -> None:
        self.before = self.before or Path(self.via).with_name("said").read_text()
        if port == "p1":
            raise MappingError("p1 stays")
        self.unbound += (port,)


class _Condemning(Ledger):
    def condemn(self, *_: object) -> None:
        raise MappingError("the row stays")


def test_what_cannot_be_closed_keeps_nothing_else_open(tmp_path: Path) -> None:
    via, said = tmp_path / "via", tmp_path / "said"
    via.write_text(f'#!/bin/sh\necho "$@" >> {said}\n')
    via.chmod(0o755)
    nobody = cast("Writer", None)
    site = _Stubborn(nobody, str(via), Cause("test", "", ""))
    watcher = _Watcher(site, _Condemning(nobody), "host-a", Policy.CLOSE)
    done = {alarm.done for alarm in watcher.look()}
    assert done == {"not closed: the row stays; p1 stays"}
    assert set(site.unbound) == {"p2"}
    for name in ("p1", "p2"):
        for device in (f"br-guest {name}", f"br-guest g-{name}", f"br-nic n-{name}"):
            assert f"del-port {device}\n" in site.before, "it waited for the database"
