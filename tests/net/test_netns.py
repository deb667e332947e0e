"""Namespaces, and labs, that are removed while somebody is still at work on them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from topo import netns, removal
from topo.mininet_check import left, start
from topo.mininet_control import ROOT
from topo.waiting import wait_until

NAME = f"tn{os.getpid()}"
SLEEP = ("sleep", f"{1000 + os.getpid()}")


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"{removal.prefix(NAME)}one"
    netns.add(name)
    yield name
    for pid in netns.pids_told(SLEEP):
        os.kill(pid, signal.SIGKILL)
    netns.delete(netns.names(name))


def test_who_enters_after_the_last_look_is_ended(namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = netns.run

    def run(inside: str | None, argv: Sequence[str]) -> str:
        if list(argv) == ["ip", "netns", "delete", namespace]:
            subprocess.run(netns.inside(namespace, ["setsid", "--fork", *SLEEP]), check=True)
            wait_until(lambda: netns.pids([namespace]), 5, "somebody in there")
        return real(inside, argv)

    monkeypatch.setattr(netns, "run", run)
    netns.delete([namespace])
    assert netns.names(namespace) == []
    wait_until(lambda: not netns.pids_told(SLEEP), 1, "nobody to be left")


@contextlib.contextmanager
def called(*argv: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program with this command line, whatever it says: it does nothing, as nobody reads what it writes."""
    with subprocess.Popen(argv, executable="/usr/bin/yes", stdout=subprocess.PIPE) as process:
        try:
            wait_until(lambda: process.pid in netns.pids_told(argv), 5, "its command line")
            yield process
        finally:
            process.kill()


def test_who_is_interrupted_on_the_way_in_is_back_home(namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real, home = netns._setns, Path("/proc/self/ns/net").readlink()
    interrupted: list[int] = []

    def setns(fd: int) -> None:
        real(fd)
        if not interrupted:
            interrupted.append(fd)
            raise KeyboardInterrupt

    monkeypatch.setattr(netns, "_setns", setns)
    with pytest.raises(KeyboardInterrupt), netns.entered(namespace):
        pass
    assert interrupted
    assert Path("/proc/self/ns/net").readlink() == home


def test_who_removes_a_namespace_that_he_is_in_goes_on(namespace: str) -> None:
    """An interrupt may come at any moment, also on the way out."""
    remove = (
        f"from topo import netns; kept = netns.entered({namespace!r}); kept.__enter__(); netns.delete([{namespace!r}])"
    )
    subprocess.run([sys.executable, "-c", remove], cwd=ROOT, check=True, timeout=20)
    assert netns.names(namespace) == []


def test_who_is_about_to_enter_is_ended(namespace: str) -> None:
    with called(*netns.inside(namespace, SLEEP)) as late:
        netns.delete([namespace])
        assert late.wait(1) == -signal.SIGKILL


def test_others_that_name_a_namespace_are_left_alone(namespace: str) -> None:
    with called("ip", "netns", "exec", f"{namespace}1", *SLEEP) as other:
        netns.delete([namespace])
        assert other.poll() is None


def test_a_builder_is_ended_whoever_has_started_it() -> None:
    folder = removal.FOLDER / NAME
    folder.mkdir(parents=True)
    argv = [sys.executable, "-m", removal.BUILDER, NAME, "wait"]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as builder:
        wait_until(lambda: builder.pid in netns.pids_told([removal.BUILDER, NAME]), 5, "it to be started")
        removal.remove(f"{NAME}1")
        assert builder.poll() is None, "another lab's is left alone"
        removal.remove(NAME)
        try:
            assert builder.wait(1) == -signal.SIGKILL
        finally:
            builder.kill()
    assert not folder.exists()


def test_others_may_make_their_folder_at_any_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removal, "FOLDER", tmp_path / "labs")
    (removal.FOLDER / NAME).mkdir(parents=True)
    removal.remove(NAME)
    assert list(tmp_path.rglob("*")) == [removal.FOLDER], "without it, they fail"


def test_what_stays_is_seen_and_what_is_about_to_end_is_not() -> None:
    with start(["sh", "-c", "setsid --fork sleep 1 >/dev/null 2>&1; exit"]) as one:
        one.communicate()
    assert left(one.pid) == []
    with start(["sh", "-c", f"setsid --fork {' '.join(SLEEP)} >/dev/null 2>&1; exit"]) as other:
        other.communicate()
    assert left(other.pid) == [f"left behind: process {' '.join(SLEEP)} "]
    (pid,) = netns.pids_told(SLEEP)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), 5, "it to end")
