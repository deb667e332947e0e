"""Network namespaces: make, enter, run in, delete."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from collections.abc import Mapping as MappingABC
from pathlib import Path
from typing import Final

from topo.waiting import wait_until

FOLDER: Final = Path("/run/netns")
_CLONE_NEWNET: Final = 0x40000000
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


class CommandError(RuntimeError):
    """A program failed. Says which, and what it wrote."""


def run(
    namespace: str | None,
    argv: Sequence[str],
    *,
    env: MappingABC[str, str] | None = None,
    stdin: str | None = None,
    seconds: float = 60,
) -> str:
    """Run a program, in a namespace if one is named, and return what it printed.

    Raises:
        CommandError: it failed, or did not end within `seconds`.
    """
    try:
        done = subprocess.run(
            inside(namespace, argv),
            input=stdin or "",
            capture_output=True,
            text=True,
            env=env,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"{' '.join(argv)}: no end after {seconds:g} s") from error
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[-2000:]
        where = f" (in {namespace})" if namespace else ""
        raise CommandError(f"{' '.join(argv)}{where}: exit status {done.returncode}: {said}")
    return str(done.stdout)


def start(namespace: str, argv: Sequence[str], log: Path, env: MappingABC[str, str]) -> None:
    """Start a program that outlives this one (init adopts it), and writes what it says to the end of `log`."""
    command = inside(namespace, ["setsid", "--fork", *argv])
    with log.open("a") as out:
        subprocess.run(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env=env, check=True)


def popen(namespace: str | None, argv: Sequence[str]) -> subprocess.Popen[str]:
    """Start a program whose output the caller reads from its `stdout`, errors included. The caller ends it."""
    return subprocess.Popen(
        inside(namespace, argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def inside(namespace: str | None, argv: Sequence[str]) -> list[str]:
    """The command that runs `argv` in the namespace, under its own process id: `ip netns exec` replaces itself."""
    return ["ip", "netns", "exec", namespace, *argv] if namespace else list(argv)


def ip(namespace: str, commands: str) -> None:
    """Run lines of `ip` commands in a namespace, in order, up to the first that fails."""
    run(None, ["ip", "-n", namespace, "-batch", "-"], stdin=commands)


def names(prefix: str = "") -> list[str]:
    """Namespaces whose name starts with `prefix`."""
    return sorted(path.name for path in FOLDER.glob(f"{prefix}*")) if FOLDER.is_dir() else []


def add(namespace: str) -> None:
    """Make a namespace that forwards nothing, answers ARP only where the address is, and speaks no IPv6 unasked."""
    run(None, ["ip", "netns", "add", namespace])
    _settle(namespace)


def attach(namespace: str, pid: int) -> None:
    """Name the namespace that a process is in, and make it like those of `add`; it lasts until both are gone."""
    run(None, ["ip", "netns", "attach", namespace, str(pid)])
    _settle(namespace)


def _settle(namespace: str) -> None:
    settings = {
        "net/ipv4/ip_forward": "0",  # a new namespace copies the machine's
        "net/ipv4/conf/all/arp_ignore": "1",
        "net/ipv6/conf/all/disable_ipv6": "1",
        "net/ipv6/conf/default/disable_ipv6": "1",
    }
    with entered(namespace):
        for name, value in settings.items():
            # A kernel without IPv6 has no such file, and needs none.
            with contextlib.suppress(FileNotFoundError):
                Path("/proc/sys", name).write_text(value)
    ip(namespace, "link set dev lo up")


def speak_ipv6(namespace: str, interface: str) -> None:
    """Let the kernel speak IPv6 on one interface of a namespace, link-local address and all."""
    with entered(namespace):
        Path("/proc/sys/net/ipv6/conf", interface, "disable_ipv6").write_text("0")


@contextlib.contextmanager
def entered(namespace: str) -> Iterator[None]:
    """Put this thread in the namespace for a while. Sockets that it opens, and programs that it starts, stay there."""
    with Path("/proc/thread-self/ns/net").open() as here, (FOLDER / namespace).open() as there:
        _setns(there.fileno())
        try:
            yield
        finally:
            _setns(here.fileno())


def _setns(fd: int) -> None:
    # os.setns came with Python 3.12.
    if _LIBC.setns(fd, _CLONE_NEWNET):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def pids(namespaces: Sequence[str]) -> set[int]:
    """The processes in any of the namespaces."""
    wanted = {((status := (FOLDER / name).stat()).st_dev, status.st_ino) for name in namespaces}
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        # Processes end while we look.
        with contextlib.suppress(OSError):
            status = (path / "ns/net").stat()
            if (status.st_dev, status.st_ino) in wanted:
                found.add(int(path.name))
    return found


def delete(namespaces: Sequence[str]) -> None:
    """End the processes in the namespaces, and delete these, with every interface in them."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        for pid in pids(namespaces):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, how)
        try:
            wait_until(lambda: not pids(namespaces), 3, "processes to end")
            break
        except TimeoutError:
            if how is signal.SIGKILL:
                raise
    for name in namespaces:
        run(None, ["ip", "netns", "delete", name])
