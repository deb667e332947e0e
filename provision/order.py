"""The order in which a host is given to a tenant and taken back, which is what keeps its port closed.

    provision   power-off -> bind -> check -> boot-device -> power-on -> guest -> active
    release     power-off -> unbind -> confirm -> wipe -> available

A machine has power only while its port's rules are confirmed and found as they must be. Each step is written down
before it is begun, and does nothing that is done already: so a run that was killed is gone on with by the next.
"""

from __future__ import annotations

import time
from collections.abc import Callable
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
        record = self.ledger.begin(host, lambda found: _may_provision(found, host, port, image))
        if record.state is State.ACTIVE:
            return self.ledger.write(record, owner="")
        if record.state not in (State.CLOSING, State.DEPLOYING):
            columns = {"port": port, "device": device, "image": image, "problem": "", "since": int(time.time())}
            record = self.ledger.write(record, state=State.CLOSING, step=Step.POWER_OFF, **columns)
        return self._guarded(record, lambda at: self._deploy(at, boot_seconds))

    def release(self, host: str, port: str, wipe: Callable[[], None] | None) -> Record:
        """Take `host` back from the guest of `port`.

        Raises:
            MappingError: as `provision`.
        """
        record = self.ledger.begin(host, lambda found: _may_release(found, host, port))
        if record.state is not State.RELEASING:
            record = self.ledger.write(record, state=State.RELEASING, step=Step.POWER_OFF, problem="")
        return self._guarded(record, lambda at: self._take_back(at, wipe))

    def _guarded(self, record: Record, work: Callable[[Record], Record]) -> Record:
        try:
            return work(record)
        except TakenOverError:
            raise  # what is so now is the other run's doing
        except MappingError as error:
            problem = f"{record.host}: {error}" if record.host not in str(error) else str(error)
            closed = self._close(record)
            self.ledger.write(record, state=State.FAILED, problem=f"{problem}{closed}", owner="")
            raise MappingError(f"{problem}{closed}") from None

    def _close(self, record: Record) -> str:
        """Close the port, whatever has happened; return what is to be said of that."""
        try:
            self.site.unbind(record.port)
            closed = self.site.confirm(record.host, _CLOSED_SECONDS, self._beat(record))
        except MappingError as error:
            return f". Its port could not be closed: {error}"
        return (
            "" if closed else f". Its port is unbound, and host {record.host} has not confirmed it: turn it off by hand"
        )

    def _deploy(self, record: Record, boot_seconds: float) -> Record:
        beat = self._beat(record)
        if _ORDER[record.step] < _ORDER[Step.POWER_ON] or not self._may_go_on(record):
            record = self._power_off(record)
            record = self._begin(record, Step.BIND, state=State.DEPLOYING)
            self.site.bind(record.port, record.host, record.device)
            if not self.site.confirm(record.host, APPLIED_SECONDS, beat):
                raise MappingError(self.site.why_not_confirmed(record.host))
            self._end(record)
            record = self._begin(record, Step.CHECK)
            if faults := self.site.faults(record.host):
                raise MappingError(f"host {record.host} is not as it must be: {faults[0]}{_more(faults)}")
            self._end(record)
            record = self._begin(record, Step.BOOT_DEVICE)
            self.machine.boot_from(record.image)
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
        self._wait(lambda: self.site.seen(record.port), boot_seconds, record, silent)
        self._end(record)
        return self.ledger.write(record, state=State.ACTIVE, step=Step.DONE, owner="", since=int(time.time()))

    def _may_go_on(self, record: Record) -> bool:
        """Whether a run that was killed at or after power-on had the rules in place, and still has them."""
        confirmed = self.site.is_bound(record.port, record.host) and self.site.confirm(
            record.host, APPLIED_SECONDS, self._beat(record)
        )
        return confirmed and not self.site.faults(record.host)

    def _take_back(self, record: Record, wipe: Callable[[], None] | None) -> Record:
        record = self._power_off(record)
        record = self._begin(record, Step.UNBIND)
        self.site.unbind(record.port)
        self._end(record)
        record = self._begin(record, Step.CONFIRM)
        closed: Closed = self.site.closed(record.port, record.host, record.device, APPLIED_SECONDS, self._beat(record))
        if closed.problem:
            raise MappingError(closed.problem)
        self.machine.eject()
        self._end(record)
        record = self._begin(record, Step.WIPE)
        if wipe:
            wipe()
        self._end(record)
        columns = {"port": "", "device": "", "image": "", "owner": "", "since": int(time.time())}
        return self.ledger.write(record, state=State.AVAILABLE, step=Step.DONE, **columns)

    def _power_off(self, record: Record) -> Record:
        record = self._begin(record, Step.POWER_OFF)
        self.machine.turn_off()
        self._wait(lambda: not self.machine.is_on(), POWER_SECONDS, record, _not_off(record.host))
        # A BMC may say so and be wrong. What the port receives comes from a machine that runs.
        before = self.site.received(record.host, record.device)
        self.sleep(QUIET_SECONDS)
        if before is not None and self.site.received(record.host, record.device) != before:
            raise MachineError(
                f"the BMC of host {record.host} says that it is off, and frames still come: cut its power by hand"
            )
        record = self.ledger.write(record, power="off")
        self._end(record)
        return record

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


def _may_provision(found: Record | None, host: str, port: str, image: str) -> None:
    if found is None or found.state is State.AVAILABLE:
        return
    if found.port != port:
        raise MappingError(f"host {host} is {found.state} for port {found.port}: `lockgate release {found.port}` first")
    if found.state is State.RELEASING:
        raise MappingError(f"host {host} is being released: finish that first: `lockgate release {port}`")
    if found.state is not State.FAILED and found.image != image:
        boots = f"from {found.image}" if found.image else "from the network"
        raise MappingError(f"host {host} boots {boots} for port {port}: `lockgate release {port}` first")


def _may_release(found: Record | None, host: str, port: str) -> None:
    if found is None or found.port != port:
        raise MappingError(f"host {host} is not provisioned for port {port}: look with `lockgate host list`")
