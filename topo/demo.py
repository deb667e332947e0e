"""`make demo`: hosts and guests are put up, everything that Lockgate promises is shown on them, and all is removed.

Every claim is checked on captures, counters and flows of the running lab; one that does not hold turns the exit status.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.text import Text

from topo import demo_faults, demo_traffic, netns
from topo.demo_look import running
from topo.demo_show import Part, Step, console
from topo.lab import Lab
from topo.netns import CommandError
from topo.spec import LabError
from topo.waiting import wait_until

EXAMPLE: Final = Path(__file__).parent.parent / "examples" / "three-hosts.yaml"
_INTERRUPTED: Final = 130
_TITLE_GONE: Final = "The lab is removed"
_EXPECTED_GONE: Final = "no namespace, process or file of it is left"

PARTS: Final = (*demo_traffic.PARTS, *demo_faults.PARTS)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(epilog="Exit status: 0 all of it holds, 1 something does not, 2 wrong usage, 130 interrupted.")
def demo(
    name: Annotated[str, typer.Option("--name", "-n", help="The lab's name. One that has it is removed.")] = "demo",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a step, a line each.")] = False,
) -> None:
    """Show what Lockgate does, step by step, on three hosts in network namespaces of this machine. Needs root.

    The switches, the controller and the mapping database are the real ones, and what is seen is captured on the wire.

    Takes half a minute. Afterwards nothing of it is left.
    """
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.default_int_handler)
    try:
        with _alone(name):
            status = _play(name, None if as_json else console())
    except KeyboardInterrupt:
        _complain("interrupted; the lab is removed")
        status = _INTERRUPTED
    except (CommandError, LabError, OSError) as error:
        _complain(str(error))
        status = 1
    raise typer.Exit(status)


def _play(name: str, out: Console | None) -> int:
    started = time.monotonic()
    numbers = itertools.count(1)
    steps: list[Step] = []

    def say(text: str) -> None:
        if out:
            out.print(Text(f"{time.monotonic() - started:6.1f} s  {text}", "dim"), soft_wrap=True)

    with Lab(name, say) as lab:
        if lab.state != "down":
            say(f"removing the lab {name} that is there")
            lab.down()
        lab.up(EXAMPLE)
        for part in PARTS:
            steps.append(step := Step(next(numbers), part.title, part.expected, out))
            whole = _take(part, lab, step)
            step.end()
            if not whole:
                break
        processes = netns.pids(netns.names(lab.prefix))
        say("removing the lab")
    steps.append(step := Step(next(numbers), _TITLE_GONE, _EXPECTED_GONE, out))
    step.begin()
    with contextlib.suppress(TimeoutError):  # what has let go of its namespace may still be about to end
        wait_until(lambda: not running(processes), 3, "processes to end")
    step.equal("namespaces left", [], netns.names(lab.prefix))
    step.equal(f"of {len(processes)} processes, left", [], running(processes))
    step.equal(f"{lab.folder} is there", False, lab.folder.exists())
    step.end()
    failed = [step for step in steps if not step.ok]
    if failed:
        for step in failed:
            for problem in step.problems:
                _complain(f"step {step.number}: {problem}")
        return 1
    checks = sum(len(step.checks) for step in steps)
    if out:
        seconds = time.monotonic() - started
        out.print(f"\n[bold green]All of it holds[/]: {len(steps)} steps, {checks} checks, {seconds:.0f} s.")
    return 0


def _take(part: Part, lab: Lab, step: Step) -> bool:
    """Play a part. False if it could not go on to its end: the lab is then in no state for the next."""
    step.begin()
    try:
        part.play(lab, step)
    except (CommandError, LabError, OSError) as error:
        step.check("goes on to its end", error, ok=False, expected="no error")
        return False
    return True


@contextlib.contextmanager
def _alone(name: str) -> Iterator[None]:
    """Two demonstrations in one lab would take it from each other. The lock is gone with the process that holds it."""
    if os.geteuid():
        raise LabError("the lab is made of network namespaces, which only root may make: run `make demo`, or use sudo")
    with socket.socket(socket.AF_UNIX) as lock:
        try:
            lock.bind(f"\0lockgate-demo-{name}")
        except OSError:
            raise LabError(f"a demonstration in the lab {name!r} is running: wait for it, or use --name") from None
        yield


def _complain(problem: str) -> None:
    Console(stderr=True, highlight=False).print(f"lockgate demo: {problem}", style="red", markup=False, soft_wrap=True)


if __name__ == "__main__":
    app()
