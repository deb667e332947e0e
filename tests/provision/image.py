"""A Linux to boot from a CD: Debian's kernel, and BusyBox as its only program.

What the guest does is in `_INIT`: from its first moment on it sends, from the address that it is going to have, and it
asks for one by DHCP. Built from Debian packages alone, which are unpacked, not installed.
"""

from __future__ import annotations

import fcntl
import gzip
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_PACKAGES: Final = ("busybox-static", "isolinux", "syslinux-common")
_MODULES: Final = (
    *("virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci"),
    *("failover", "net_failover", "virtio_net"),
)
"""In an order in which each finds what it needs."""

_INIT: Final = """\
#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /tmp
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox --install -s /bin
export PATH=/bin
for module in {modules}; do insmod /modules/$module.ko; done
ip link set lo up
ip link set eth0 up
ip addr add {address}/24 dev eth0
# From the first moment on, and for ever: it must come to nothing before the rules are there. It asks for no MAC, and
# waits for no answer: there is a packet in any moment that a port is open.
arp -s {peer} {peer_mac}
(while true; do ping -c 1 -W 1 {peer} & usleep 50000; done) >/dev/null 2>&1 &
udhcpc -i eth0 -q -n -t 20 -T 1 -s /lease >/dev/ttyS0 2>&1
ip addr show eth0 >/dev/ttyS0
while true; do sleep 60; done
"""
_LEASE: Final = """\
#!/bin/busybox sh
[ "$1" = bound ] || exit 0
echo "lease: $ip/$mask router $router" >/dev/ttyS0
ip addr add $ip/$mask dev eth0
ip route add default via $router
"""
_ISOLINUX: Final = """\
default linux
serial 0
label linux
  kernel linux
  append initrd=initrd console=ttyS0 quiet panic=-1
"""


def build(kept: Path, folder: Path, address: str, peer: tuple[str, str]) -> Path:
    """The image, in `folder`; the guest is to have `address`, and pings `peer`, of which it knows IP address and MAC.

    What is downloaded stays in `kept`.
    """
    unpacked = _unpacked(kept)
    tree = folder / "tree"
    tree.mkdir()
    (kernel,) = unpacked.glob("boot/vmlinuz-*")
    shutil.copy(kernel, tree / "linux")
    shutil.copy(unpacked / "usr/lib/ISOLINUX/isolinux.bin", tree)
    shutil.copy(unpacked / "usr/lib/syslinux/modules/bios/ldlinux.c32", tree)
    (tree / "isolinux.cfg").write_text(_ISOLINUX)
    init = _INIT.format(modules=" ".join(_MODULES), address=address, peer=peer[0], peer_mac=peer[1])
    with gzip.open(tree / "initrd", "wb", compresslevel=1) as initrd:
        initrd.write(b"".join(_cpio(_files(unpacked, init))))
    image = folder / "guest.iso"
    argv = ["genisoimage", "-quiet", "-J", "-R", "-b", "isolinux.bin", "-c", "boot.cat", "-no-emul-boot"]
    argv += ["-boot-load-size", "4", "-boot-info-table", "-o", str(image), str(tree)]
    subprocess.run(argv, check=True)
    return image


def _unpacked(kept: Path) -> Path:
    """The packages' files, downloaded once."""
    kept.mkdir(parents=True, exist_ok=True)
    unpacked = kept / "unpacked"
    with (kept / "lock").open("w") as lock:
        # Another run may be at it.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not unpacked.is_dir():
            with tempfile.TemporaryDirectory(dir=kept) as part:
                _download(Path(part))
                Path(part, "unpacked").rename(unpacked)
    return unpacked


def _download(folder: Path) -> None:
    depends = subprocess.run(
        ["apt-cache", "depends", "linux-image-cloud-amd64"], check=True, capture_output=True, text=True
    ).stdout
    kernel = next(line.split()[1] for line in depends.splitlines() if "Depends: linux-image-" in line)
    argv = ["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", kernel, *_PACKAGES]
    subprocess.run(argv, check=True, cwd=folder)
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg-deb", "--extract", package, folder / "unpacked"], check=True)


def _files(unpacked: Path, init: str) -> Iterator[tuple[str, int, bytes]]:
    """Name, mode and content of what is in the guest's memory."""
    for name in ("bin", "modules", "dev"):
        yield name, stat.S_IFDIR | 0o755, b""
    yield "dev/console", stat.S_IFCHR | 0o600, b""
    yield "bin/busybox", stat.S_IFREG | 0o755, (unpacked / "bin/busybox").read_bytes()
    yield "init", stat.S_IFREG | 0o755, init.encode()
    yield "lease", stat.S_IFREG | 0o755, _LEASE.encode()
    for module in _MODULES:
        (file,) = unpacked.glob(f"lib/modules/*/kernel/**/{module}.ko")
        yield f"modules/{module}.ko", stat.S_IFREG | 0o644, file.read_bytes()


def _cpio(files: Iterator[tuple[str, int, bytes]]) -> Iterator[bytes]:
    """An archive in the form that the kernel reads: cpio(5), "newc"."""
    for number, (name, mode, content) in enumerate((*files, ("TRAILER!!!", 0, b"")), 1):
        device = (5, 1) if name == "dev/console" else (0, 0)
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(name) + 1, 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        yield head + bytes(-len(head) % 4) + content + bytes(-len(content) % 4)
