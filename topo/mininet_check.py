"""`make mininet`: run `mn` on every topology, show what it prints, and see whether that is what was promised.

`mn` ends with status 0 whatever happens, so what it prints is what is judged; and what it leaves behind.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from topo import netns
from topo.mininet_control import PYTHON, ROOT
from topo.removal import FOLDER, prefix
from topo.waiting import wait_until

_TOLERANCE: Final = 11
"""Percent by which the loss of 300 pings may differ from what is expected of 18.5 %: five times its deviation."""

_END_SECONDS: Final = 5
_MARK: Final = "LOCKGATE_CHECKED"
_marks: dict[int, str] = {}
"""Process -> what all have in their environment that it has started, and those in turn: no other lab's do."""


@dataclass(frozen=True, slots=True)
class Check:
    """One run of `mn --test pingall`. `says` are lines that it has to print, among others, in this order."""

    topology: str
    says: tuple[str, ...]
    loses: bool = False


def _within(vpc: str, subnet: str) -> tuple[str, ...]:
    return (
        f"*** Within {vpc}, {subnet}",
        "*** Results: 0% dropped (2/2 received)",
        "*** Frames that guests of other VPCs received meanwhile: 0",
    )


CHECKS: Final = (
    Check("baremetal,hosts=3,guests=2", ("*** Results: 0% dropped (30/30 received)",)),
    Check("leafspine,hosts=4", ("*** Results: 0% dropped (12/12 received)",)),
    Check(
        "twovpcs,hosts=2,guests=1",
        (
            *_within("blue", "10.0.0.0/24"),
            *_within("blue", "10.1.0.0/24"),
            *_within("green", "10.0.0.0/24"),
            *_within("green", "10.2.0.0/24"),
            "*** Across VPCs, to addresses that only the other VPC has",
            "*** Results: 100% dropped (0/8 received)",
            "*** Pings that any guest received meanwhile: 0",
        ),
    ),
    Check("lossy,loss=5", ("*** Results: 0% dropped (2/2 received)",), loses=True),
)


def command(topology: str, *options: str) -> list[str]:
    """The command line, as a user types it, but for sudo."""
    return ["mn", "--custom", "topo/mininet_lab.py", "--topo", topology, *options]


def start(argv: list[str]) -> subprocess.Popen[str]:
    """Start `mn` in the project's folder, in a process group of its own as a terminal would."""
    mark = secrets.token_hex(8)
    process = subprocess.Popen(
        argv,
        cwd=ROOT,
        env=os.environ | {PYTHON: sys.executable, "PYTHONUNBUFFERED": "1", _MARK: mark},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    )
    _marks[process.pid] = mark
    return process


def run(check: Check, show: Callable[[str], None]) -> list[str]:
    """Run one, show each line that it prints, and say what is wrong."""
    printed = []
    with start(command(check.topology, "--test", "pingall")) as mn:
        assert mn.stdin  # noqa: S101  # for mypy
        assert mn.stdout  # noqa: S101
        mn.stdin.close()
        try:
            for line in mn.stdout:
                printed.append(line.rstrip())
                show(line.rstrip())
        except BaseException:
            # In a group of its own it does not see the Ctrl-C that ends this: pass it on, and let it clean up.
            mn.terminate()
            raise
    return [*judge(check, printed), *left(mn.pid)]


def judge(check: Check, printed: list[str]) -> list[str]:
    """What is wrong with what `mn` has printed."""
    rest = iter(printed)
    wrong = [f"it does not say, in its place: {line}" for line in check.says if line not in rest]
    results = [line for line in printed if line.startswith("*** Results:")]
    if len(results) != sum(line.startswith("*** Results:") for line in check.says):
        wrong.append(f"these results, and no others, are expected: {results}")
    if not any(line.startswith("completed in") for line in printed):
        wrong.append("it does not come to its end")
    if check.loses:
        measured = re.findall(r"([\d.]+)% of \d+ pings lost; ([\d.]+)% expected", "\n".join(printed))
        wrong += [f"{lost}% lost, of {expected}% expected" for lost, expected in measured if not _near(lost, expected)]
        wrong += [] if measured else ["it does not say how many are lost"]
    return wrong


def _near(lost: str, expected: str) -> bool:
    return abs(float(lost) - float(expected)) <= _TOLERANCE


def left(pid: int) -> list[str]:
    """What is left on this machine of the lab that a process has made which `start` has started.

    Processes are given a moment: one that is killed is still listed for a while, and one that was about to be told to
    do something in the lab ends when it finds none.
    """
    found = dict.fromkeys(_made(f"mn{pid}"))
    with contextlib.suppress(TimeoutError):
        wait_until(lambda: not _processes(pid), _END_SECONDS, "processes to end")
    found |= dict.fromkeys([*_made(f"mn{pid}"), *_processes(pid)])
    return [f"left behind: {what}" for what in found]


def _made(lab: str) -> list[str]:
    folder = FOLDER / lab
    return [f"namespace {each}" for each in netns.names(prefix(lab))] + (
        [f"folder {folder}"] if folder.exists() else []
    )


def _processes(pid: int) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        # Processes end while we look.
        with contextlib.suppress(OSError):
            words = (path / "cmdline").read_text(errors="replace").replace("\0", " ")
            if f"{_MARK}={_marks[pid]}" in (path / "environ").read_text(errors="replace").split("\0"):
                found.append(f"process {words}")
    return found


def main() -> int:
    """Run every check. Exit status 1 if anything is not as promised."""
    problems = []
    for check in CHECKS:
        print(f"\n$ mn {' '.join(command(check.topology, '--test', 'pingall')[1:])}", flush=True)
        wrong = run(check, lambda line: print(line, flush=True))
        problems += [f"{check.topology}: {problem}" for problem in wrong]
    print("\nAs promised: every topology." if not problems else "\nNot as promised:")
    for problem in problems:
        print(f"  {problem}")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
