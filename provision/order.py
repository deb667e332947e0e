"""The order in which a host is given to a tenant and taken back, which is what keeps its port closed.

    provision   power-off -> bind -> check -> boot-device -> power-on -> guest -> active
    release     power-off -> unbind -> confirm -> wipe -> available

A machine has power only while its port's rules are confirmed and found as they must be. Each step is written down
before it is begun, and does nothing that is done already: so a run that was killed is gone on with by the next.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from mapping.errors import MappingError
from provision.machine import Machine, MachineError
from provision.record import Ledger, Record, State, Step, TakenOverError
from provision.site import Closed, Site

POWER_SECONDS: Final = 120.0
APPLIED_SECONDS: Final = 30.0
_CLOSED_SECONDS: Final = 10.0
QUIET_SECONDS: Final = 1.0
"""For how long no frame may come from a machine that is said to be off."""
_POLL: Final = 0.2
_BEAT: Final = 3.0

_ORDER: Final = {step: place for place, step in enumerate(Step)}


@dataclass(frozen=True, slots=True)
class Event:
    """A step has begun or ended, for who watches."""

    step: Step
    what: str
    done: bool
    seconds: float


Watch = Callable[[Event], None]
Wipe = Callable[[Callable[[], None]], None]
"""Wipes a machine; given what to call now and then, since it may take hours."""


@dataclass
class Run:
    """One host, one port, and what can be asked of both. Time is passed in, to be tested without waiting."""

    ledger: Ledger
    machine: Machine
    site: Site
    watch: Watch
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _started: float = 0.0
    _beaten: float = 0.0

    def provision(self, host: str, port: str, device: str, image: str, boot_seconds: float) -> Record:
        """Give `host` to the guest of `port`. Done already: nothing happens.

        Raises:
            MappingError: it could not be done. The port is closed then, and the record says what to mend.
        """
        new = {"state": State.CLOSING, "step": Step.POWER_OFF, "problem": "", "since": int(time.time())}
        new |= {"port": port, "device": device, "image": image}
        record = self.ledger.begin(host, lambda found: new if _is_new(found, host, port, image) else {})
        if record.state is State.ACTIVE:
            return self.ledger.write(record, owner="")
        return self._guarded(record, lambda at: self._deploy(at, boot_seconds))

    def release(self, host: str, port: str, wipe: Wipe | None) -> Record:
        """Take `host` back from the guest of `port`.

        Raises:
            MappingError: as `provision`.
        """
        new = {"state": State.RELEASING, "step": Step.POWER_OFF, "problem": ""}
        record = self.ledger.begin(host, lambda found: new if _is_to_release(found, host, port) else {})
        return self._guarded(record, lambda at: self._take_back(at, wipe))

    def _guarded(self, record: Record, work: Callable[[Record], Record]) -> Record:
        try:
            return work(record)
        except TakenOverError:
            raise  # what is so now is the other run's doing
        except KeyboardInterrupt:
            # As if killed, but that the next run need not wait until this one counts as dead.
            with suppress(MappingError):
                self.ledger.write(record, owner="")
            raise
        except Exception as error:
            self._fail(record, error)
            raise

    def _fail(self, record: Record, error: Exception) -> None:
        """Close the port, whatever has happened, and write down what.

        Raises:
            MappingError: what a person is to be told, if `error` says what is to be done.
        """
        problem = f"{error}" if record.host in str(error) else f"{record.host}: {error}"
        try:
            problem += self._close(record)
            self.ledger.write(record, state=State.FAILED, problem=problem, owner="")
        except TakenOverError:
            raise
        except MappingError:
            problem += ". Nor could its port be closed, or this be written down: mend that, and run the same again"
        if isinstance(error, MappingError):
            raise MappingError(problem) from None

    def _close(self, record: Record) -> str:
        """Close the port; return what is to be said of that."""
        self.site.unbind(record.port, record.host, self.ledger.held(self.ledger.write(record)))
        if self.site.confirm(record.host, _CLOSED_SECONDS, self._beat(record)):
            return ""
        return f". Its port is unbound, and host {record.host} has not confirmed it: turn it off by hand"

    def _deploy(self, record: Record, boot_seconds: float) -> Record:
        if _ORDER[record.step] < _ORDER[Step.POWER_ON] or not self._may_go_on(record):
            record, frames = self._power_off(record)
            record = self._begin(record, Step.BIND, state=State.DEPLOYING)
            # Its flows are to have no packet yet of whoever was here before.
            self.site.unbind(record.port, record.host, self.ledger.held(record))
            self._confirm(record)
            self.site.bind(record.port, record.host, record.device, self.ledger.held(record))
            self._confirm(record)
            self._end(record)
            record = self._begin(record, Step.CHECK)
            if faults := [*self.site.others(record.port, record.host), *self.site.faults(record.host)]:
                raise MappingError(f"host {record.host} is not as it must be: {faults[0]}{_more(faults)}")
            self._end(record)
            record = self._begin(record, Step.BOOT_DEVICE)
            self.machine.boot_from(record.image)
            if self.machine.is_on() or self._frames(record) != frames:
                raise MachineError(
                    f"host {record.host} was turned on by somebody else, and may run anything: run the same again, "
                    "which turns it off first"
                )
            self._end(record)
        elif not self.machine.is_on():
            self.machine.boot_from(record.image)
        record = self._begin(record, Step.POWER_ON)
        self.machine.turn_on()
        self._wait(self.machine.is_on, POWER_SECONDS, record, _not_on(record.host))
        record = self.ledger.write(record, power="on")
        self._end(record)
        record = self._begin(record, Step.GUEST)
        silent = f"nothing came from an address of port {record.port} within {boot_seconds:g} s: look at the console"
        self._wait(lambda: self.site.seen(record.port, record.host), boot_seconds, record, silent)
        self._end(record)
        return self.ledger.write(record, state=State.ACTIVE, step=Step.DONE, owner="", since=int(time.time()))

    def _may_go_on(self, record: Record) -> bool:
        """Whether a run that was killed at or after power-on had the rules in place, and still has them."""
        confirmed = self.site.is_bound(record.port, record.host) and self.site.confirm(
            record.host, APPLIED_SECONDS, self._beat(record)
        )
        return confirmed and not self.site.faults(record.host)

    def _take_back(self, record: Record, wipe: Wipe | None) -> Record:
        record, _ = self._power_off(record)
        record = self._begin(record, Step.UNBIND)
        self.site.unbind(record.port, record.host, self.ledger.held(record))
        self._end(record)
        record = self._begin(record, Step.CONFIRM)
        closed: Closed = self.site.closed(record.port, record.host, record.device, APPLIED_SECONDS, self._beat(record))
        if closed.problem:
            raise MappingError(closed.problem)
        self.machine.eject()
        self._end(record)
        record = self._begin(record, Step.WIPE)
        if wipe:
            wipe(self._beat(record))
        self._end(record)
        columns = {"port": "", "device": "", "image": "", "owner": "", "since": int(time.time())}
        return self.ledger.write(record, state=State.AVAILABLE, step=Step.DONE, **columns)

    def _confirm(self, record: Record) -> None:
        if not self.site.confirm(record.host, APPLIED_SECONDS, self._beat(record)):
            raise MappingError(self.site.why_not_confirmed(record.host))

    def _power_off(self, record: Record) -> tuple[Record, int]:
        """Returns how many frames the machine had sent by then as well."""
        record = self._begin(record, Step.POWER_OFF)
        self.machine.turn_off()
        self._wait(lambda: not self.machine.is_on(), POWER_SECONDS, record, _not_off(record.host))
        # A BMC may say so and be wrong. What the port receives comes from a machine that runs.
        frames = self._frames(record)
        self.sleep(QUIET_SECONDS)
        if self._frames(record) != frames:
            raise MachineError(
                f"the BMC of host {record.host} says that it is off, and frames still come: cut its power by hand"
            )
        record = self.ledger.write(record, power="off")
        self._end(record)
        return record, frames

    def _frames(self, record: Record) -> int:
        """Frames that the machine has sent, as its port knows; a device that is not there has sent none."""
        return self.site.received(record.host, record.device) or 0

    def _begin(self, record: Record, step: Step, **columns: object) -> Record:
        record = self.ledger.write(record, step=step, **columns)
        self._started = self._beaten = self.clock()
        self.watch(Event(step, _WORDS[step], done=False, seconds=0.0))
        return record

    def _end(self, record: Record) -> None:
        self.watch(Event(record.step, _WORDS[record.step], done=True, seconds=self.clock() - self._started))

    def _beat(self, record: Record) -> Callable[[], None]:
        """Called while something is waited for: says now and then that this run is alive."""

        def beat() -> None:
            if self.clock() - self._beaten >= _BEAT:
                self._beaten = self.clock()
                self.ledger.write(record)

        return beat

    def _wait(self, condition: Callable[[], bool], seconds: float, record: Record, else_say: str) -> None:
        end, beat = self.clock() + seconds, self._beat(record)
        while not condition():
            if self.clock() >= end:
                raise MachineError(else_say)
            beat()
            self.sleep(_POLL)


_WORDS: Final = {
    Step.POWER_OFF: "turn the machine off",
    Step.BIND: "bind the port, and have its rules confirmed",
    Step.CHECK: "compare bridges and flows with what they must be",
    Step.BOOT_DEVICE: "choose what to boot from",
    Step.POWER_ON: "turn the machine on",
    Step.GUEST: "wait until the guest is seen",
    Step.UNBIND: "unbind the port",
    Step.CONFIRM: "confirm that its address answers nowhere",
    Step.WIPE: "wipe",
}


def _not_on(host: str) -> str:
    return f"host {host} was turned on, and its BMC says after {POWER_SECONDS:g} s that it is off: look at the machine"


def _not_off(host: str) -> str:
    return f"host {host} was turned off, and its BMC says after {POWER_SECONDS:g} s that it is on: cut its power"


def _more(faults: list[str]) -> str:
    return f", and {len(faults) - 1} more: look with `lockgate attest`" if len(faults) > 1 else ""


def _is_new(found: Record | None, host: str, port: str, image: str) -> bool:
    """Whether a host's provisioning begins anew; if not, it is gone on with, or done."""
    if found is None or found.state is State.AVAILABLE:
        return True
    if found.port != port:
        raise MappingError(f"host {host} is {found.state} for port {found.port}: `lockgate release {found.port}` first")
    if found.state is State.RELEASING:
        raise MappingError(f"host {host} is being released: finish that first: `lockgate release {port}`")
    if found.state is not State.FAILED and found.image != image:
        boots = f"from {found.image}" if found.image else "from the network"
        raise MappingError(f"host {host} boots {boots} for port {port}: `lockgate release {port}` first")
    return found.state is State.FAILED


def _is_to_release(found: Record | None, host: str, port: str) -> bool:
    """Whether a release begins; if not, it is gone on with."""
    if found is None or found.port != port:
        raise MappingError(f"host {host} is not provisioned for port {port}: look with `lockgate host list`")
    return found.state is not State.RELEASING
