"""Network namespaces: make, enter, run in, delete."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Mapping as MappingABC
from pathlib import Path
from typing import Final

from topo.waiting import wait_until

FOLDER: Final = Path("/run/netns")
_CLONE_NEWNET: Final = 0x40000000
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_END_SECONDS: Final = 3


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
        try:
            _setns(there.fileno())  # it may be interrupted when it has been done
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
    return _pids_in({_identity((FOLDER / name).stat()) for name in namespaces})


def delete(namespaces: Sequence[str]) -> None:
    """End the processes in the namespaces, and delete these, with every interface in them.

    A program that was told to enter one before it went is ended, too, however late it does.
    """
    try:
        end(lambda: pids(namespaces), signal.SIGTERM)
    except TimeoutError:
        end(lambda: pids(namespaces), signal.SIGKILL)
    with contextlib.ExitStack() as held:
        # Held open, so that no namespace that is made meanwhile has the number of one of these.
        files = [held.enter_context((FOLDER / name).open()) for name in namespaces]
        identities = {_identity(os.fstat(file.fileno())) for file in files}
        for name in namespaces:
            run(None, ["ip", "netns", "delete", name])
        # From here on nobody finds them by their names. Who has found one is in it, or about to be.
        end(lambda: _pids_in(identities) | _pids_entering(namespaces), signal.SIGKILL)


def end(found: Callable[[], set[int]], how: signal.Signals) -> None:
    """Send a signal to each process that is found, until there are none.

    Raises:
        TimeoutError: there still are.
    """

    def none_is_left() -> bool:
        processes = found()
        for pid in processes - told:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, how)
        told.update(processes)
        return not processes

    told: set[int] = set()
    wait_until(none_is_left, _END_SECONDS, "processes to end")


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _pids_in(identities: set[tuple[int, int]]) -> set[int]:
    return _processes(lambda process: _identity((process / "ns/net").stat()) in identities)


def _pids_entering(namespaces: Sequence[str]) -> set[int]:
    """Processes of `inside` that need not have got there yet."""
    return {pid for name in namespaces for pid in pids_told(inside(name, []))}


def pids_told(words: Sequence[str]) -> set[int]:
    """The processes that have these words among those of their command lines, one after the other."""
    wanted = "\0".join(["", *words, ""]).encode()
    return _processes(lambda process: wanted in b"\0" + (process / "cmdline").read_bytes())


def pids_at(folder: Path) -> set[int]:
    """The processes that have been told of something below a folder."""
    wanted = f"\0{folder}/".encode()
    return _processes(lambda process: wanted in b"\0" + (process / "cmdline").read_bytes())


def _processes(wanted: Callable[[Path], bool]) -> set[int]:
    """The processes whose folder in /proc is as wanted, but for this one, which nobody wants to end or wait for."""
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        # Processes end while we look.
        with contextlib.suppress(OSError):
            if wanted(path):
                found.add(int(path.name))
    return found - {os.getpid()}
