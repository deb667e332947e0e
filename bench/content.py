"""What a mapping database holds, written as its file: a million rows in seconds, before any server runs.

The file has ovsdb(5)'s standalone format: records of JSON, each after a line with its length and SHA-1.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Final

from mapping import service
from mapping.model import ROUTER_MAC, default_datapaths

VPC: Final = "big"
"""The one VPC, where there is one."""
VTEPS: Final = IPv4Address("192.0.2.0")
ALL: Final = "10.0.0.0/8"
FIRST: Final = int(IPv4Address("10.1.0.0"))
CHANGED: Final = int(IPv4Address("10.240.0.0"))
"""Addresses from here on are those that single changes give."""
ADDRESSES_OF_A_PORT: Final = 20


class Content:
    """Rows, with two hosts to begin with: `here`, whose switch is measured, and `there`.

    What makes a row returns its id.
    """

    def __init__(self) -> None:
        self.mappings: list[str] = []
        """The ids of all mappings."""
        self.vpcs: dict[str, str] = {}
        """Name -> id."""
        self._rows: defaultdict[str, list[str]] = defaultdict(list)
        # Ids decide how the server's hash tables fill: they must look random, and need not be.
        self._random = random.Random(5001)  # noqa: S311
        self._ports = 0
        self._add("Global", {"config_seq": 1})
        self.devices: list[str] = []
        """Of the ports here."""
        self._hosts = 0
        self.here, self.there = self.host("here"), self.host("there")

    def host(self, name: str) -> str:
        """A host."""
        self._hosts += 1
        vtep = VTEPS + self._hosts
        guest, nic = (f"{datapath:016x}" for datapath in default_datapaths(vtep))
        row = {"name": name, "vtep_ip": str(vtep), "encap": "vxlan"}
        return self._add("Host", {**row, "guest_datapath": guest, "nic_datapath": nic})

    def vpc(self, name: str, subnets: Sequence[str] = (ALL,)) -> str:
        """A VPC."""
        row = {"name": name, "vni": len(self.vpcs) + 1, "subnets": ["set", list(subnets)]}
        self.vpcs[name] = self._add("Vpc", {**row, "router_mac": ROUTER_MAC})
        return self.vpcs[name]

    def port(self, vpc: str, host: str, name: str = "") -> str:
        """A port. Its device has its name."""
        self._ports += 1
        name = name or f"p{self._ports}"
        if host == self.here:
            self.devices.append(name)
        mac = (0x02 << 40 | self._ports).to_bytes(6).hex(":")
        return self._add("Port", {"name": name, "mac": mac, "device": name, "vpc": _ref(vpc), "host": _ref(host)})

    def mapping(self, vpc: str, port: str, ip: int) -> str:
        """A mapping."""
        uuid = self._add("Mapping", mapping_row(vpc, port, ip))
        self.mappings.append(uuid)
        return uuid

    def write(self, file: Path) -> None:
        """Make the database's file. The rows are forgotten, their ids are not."""
        service.create(file)
        tables = (f"{json.dumps(table)}:{{{','.join(rows)}}}" for table, rows in self._rows.items())
        record = f"{{{','.join(tables)}}}\n".encode()
        with file.open("ab") as out:
            out.write(f"OVSDB JSON {len(record)} {hashlib.sha1(record).hexdigest()}\n".encode())  # noqa: S324
            out.write(record)
        self._rows.clear()

    def _add(self, table: str, row: dict[str, Any]) -> str:
        digits = f"{self._random.getrandbits(128):032x}"
        uuid = f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
        self._rows[table].append(f'"{uuid}":{json.dumps(row)}')
        return uuid


def mapping_row(vpc: str, port: str, ip: int) -> dict[str, Any]:
    """A mapping's columns."""
    return {"vpc": _ref(vpc), "port": _ref(port), "ip": str(IPv4Address(ip))}


def changed_ips() -> Iterator[str]:
    """Addresses that no mapping has had before."""
    return (str(IPv4Address(CHANGED + number)) for number in range(1 << 20))


def single_vpc(mappings: int) -> Content:
    """One VPC, with the port `local` here; the addresses are of ports there, twenty each."""
    content = Content()
    fill_vpc(content, VPC, mappings, "local")
    return content


def fill_vpc(content: Content, name: str, mappings: int, device: str = "") -> list[str]:
    """Add a VPC with so many mappings of ports there and, if named, a port here; return the mappings' ids."""
    vpc = content.vpc(name)
    if device:
        content.port(vpc, content.here, device)
    ports = [content.port(vpc, content.there) for _ in range(-(-mappings // ADDRESSES_OF_A_PORT))]
    return [content.mapping(vpc, ports[n // ADDRESSES_OF_A_PORT], FIRST + n) for n in range(mappings)]


def _ref(uuid: str) -> list[str]:
    return ["uuid", uuid]
