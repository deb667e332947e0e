"""What a guest that boots from the network is told to load: by its architecture, over DHCP and DHCPv6."""

from __future__ import annotations

import dataclasses

import pytest
from scapy.layers import dhcp6 as d6
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from controller import dhcp6
from controller.guest_config import GuestConfig, guest_config
from tests.build import host, port, vpc
from tests.unit import test_dhcp4, test_dhcp6
from tests.unit.test_dhcp4 import MAC, NOBODY, options, request
from tests.unit.test_dhcp6 import CLIENT, ia, to_servers

BOOT: tuple[tuple[str, str], ...] = (
    ("next_server", "10.0.0.2"),
    ("bios", "undionly.kpxe"),
    ("uefi-x64", "ipxe.efi"),
    ("uefi-arm64", "arm.efi"),
)
BOOT += (("uefi-http-x64", "http://10.0.0.2/ipxe.efi"), ("ipxe", "http://10.0.0.2/menu.ipxe"))
BOOT6 = (
    ("uefi-x64", "tftp://[fd00::2]/ipxe.efi"),
    ("uefi-http-x64", "http://[fd00::2]/ipxe.efi"),
    ("uefi-arm64", "arm"),
)


def guest(boot: tuple[tuple[str, str], ...] = BOOT) -> GuestConfig:
    on, blue = host("h1", "192.0.2.1"), vpc("blue", 5001)
    return guest_config(dataclasses.replace(port("web", blue, MAC, on), boot=boot), blue, ["10.0.0.7", "fd00::7"], 1450)


def pxe(architecture: int | None, vendor_class: bytes = b"PXEClient:Arch:00000:UNDI:002001", **more: bytes) -> Packet:
    arch = [] if architecture is None else [(93, architecture.to_bytes(2))]
    extra = [(77, more["user_class"])] if "user_class" in more else []
    return request("discover", (60, vendor_class), *arch, *extra)


@pytest.mark.parametrize(
    ("client", "file"),
    [
        (pxe(0), "undionly.kpxe"),
        (pxe(None), "undionly.kpxe"),
        (pxe(7), "ipxe.efi"),
        (pxe(9), "ipxe.efi"),
        (pxe(11), "arm.efi"),
        (pxe(16, b"HTTPClient:Arch:00016:UNDI:003001"), "http://10.0.0.2/ipxe.efi"),
        (pxe(0, user_class=b"iPXE"), "http://10.0.0.2/menu.ipxe"),
        (pxe(7, user_class=b"\x04iPXE"), "http://10.0.0.2/menu.ipxe"),
        (pxe(19), ""),
        (pxe(0x1234), ""),
        (request("discover"), ""),
    ],
)
def test_who_boots_is_told_what_its_architecture_loads_and_from_where(client: Packet, file: str) -> None:
    answer = test_dhcp4.ask(client, guest())
    assert answer is not None
    told = options(answer)
    server = "10.0.0.2" if file else ""
    assert answer[BOOTP].file.rstrip(b"\0").decode() == file
    assert answer[BOOTP].siaddr == (server or NOBODY)
    assert told.get("boot-file-name", b"").decode() == file
    assert told.get("tftp_server_name", b"").decode() == server
    assert ("vendor_class_id" in told) == (b"HTTPClient" in bytes(client))


IPXE = """
350101390205c05d0200005e030102013c20505845436c69656e743a417263683a30303030303a554e44493a3030323030314d04695058453717
01030607
0c0f111a2b3c4243778081828384858687afcbaf30b105011af41000eb0301000017010122010113010111010127010119010129010110010221
01011501011801011201013d070102000000001161110000000000000000000000000000000000ff
"""
"""The options of a DISCOVER that iPXE, as the ROM of a card of QEMU 7.2, sent."""
PXE = """
350101390205c037230102030405060c0d0f111216171c28292a2b3233363a3b3c42436180818283848586876111000000000000000000000000
00000000005e030103005d0200073c20505845436c69656e743a417263683a30303030373a554e44493a303033303030ff
"""
"""The same of EDK II, 2022.11, as the firmware of a PC."""
HTTP = """
350101390205c0371b0102030405060c0d0f111216171c28292a2b3233363a3b3cf1436161110000000000000000000000000000000000
5e030103005d0200103c2148545450436c69656e743a417263683a30303031363a554e44493a303033303030ff
"""
"""The same, when it boots by HTTP."""
PXE6 = """
33330001000202000000001186dd6000000000771180fe80000000000000000000fffe000011ff020000000000000000000000010002022202230077
a20c01375d030001000e0001000131de86e10200000000110008000200000003000c0dc9bba6ffffffffffffffff00060008003b003c00170010003e
0003010300003d0002000700100026000001570020505845436c69656e743a417263683a30303030373a554e44493a303033303030
"""
"""A SOLICIT of it, whole."""
WITHOUT_IPXE = tuple(pair for pair in BOOT if pair[0] != "ipxe")


@pytest.mark.parametrize(
    ("sent", "boot", "file"),
    [
        (IPXE, BOOT, "http://10.0.0.2/menu.ipxe"),
        (IPXE, WITHOUT_IPXE, "undionly.kpxe"),
        (PXE, BOOT, "ipxe.efi"),
        (HTTP, BOOT, "http://10.0.0.2/ipxe.efi"),
        (IPXE, (), ""),
        (PXE, (), ""),
    ],
)
def test_firmware_as_it_asks_is_told_what_to_load(sent: str, boot: tuple[tuple[str, str], ...], file: str) -> None:
    frame = request("discover")
    frame[DHCP].options = DHCP(bytes.fromhex(sent)).options
    answer = test_dhcp4.ask(frame, guest(boot))
    assert answer is not None
    assert answer[BOOTP].yiaddr == "10.0.0.7"
    assert answer[BOOTP].file.rstrip(b"\0").decode() == file
    assert b"\x61\x11" + bytes(17) in bytes(answer)


@pytest.mark.parametrize(
    ("architecture", "file"),
    [(7, "tftp://[fd00::2]/ipxe.efi"), (16, "http://[fd00::2]/ipxe.efi"), (11, ""), (19, ""), (0x1234, "")],
)
def test_who_boots_is_told_the_url_of_what_its_architecture_loads(architecture: int, file: str) -> None:
    http = d6.DHCP6OptVendorClass(enterprisenum=343, vcdata=[d6.VENDOR_CLASS_DATA(data=b"HTTPClient:Arch:00016")])
    pxe = d6.DHCP6OptClientArchType(archtypes=[architecture])
    asked = to_servers(d6.DHCP6_Solicit(), CLIENT, ia(), pxe, *([http] if architecture == 16 else []))
    answer = test_dhcp6.ask(asked, guest(BOOT6))
    assert answer is not None
    assert (answer[d6.DHCP6OptBootFileUrl].optdata.decode() if d6.DHCP6OptBootFileUrl in answer else "") == file
    assert (b"HTTPClient" in bytes(answer)) == (architecture == 16)


def test_firmware_as_it_solicits_is_told_what_to_load() -> None:
    answer = dhcp6.answer(bytes.fromhex(PXE6), guest(BOOT6))
    assert answer is not None
    told = Ether(answer)
    assert told[IPv6].dst == test_dhcp6.LINK_LOCAL
    assert told[d6.DHCP6OptIAAddress].addr == "fd00::7"
    assert told[d6.DHCP6OptBootFileUrl].optdata == b"tftp://[fd00::2]/ipxe.efi"
