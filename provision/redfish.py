"""Machines whose BMC speaks Redfish (DMTF DSP0266), by the `sushy` library.

User and password come from the environment or a file that only its owner can read; they are never in the database, on
the command line or in a message. Only HTTPS is spoken, the BMC's certificate is checked, and only the control network
is used (`provision.https`).
"""

from __future__ import annotations

import base64
import logging
import os
import signal
import stat
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import yaml

from mapping.errors import MappingError
from provision.control_network import Networks
from provision.machine import MachineError

USER, PASSWORD, FILE, CA = "LOCKGATE_BMC_USER", "LOCKGATE_BMC_PASSWORD", "LOCKGATE_BMC_CREDENTIALS", "LOCKGATE_BMC_CA"
"""Environment variables. FILE names a YAML file of `host: {user: ..., password: ...}`, in which `default` stands for
every other host. CA names the file of the authorities that sign the BMCs' certificates; the system's unless given."""

_SECONDS: Final = 20
"""Of silence, after which a BMC counts as one that does not answer."""
_CONNECT_SECONDS: Final = 5
_WHOLE_SECONDS: Final = 60.0
"""For all of what is asked at a time, however busily it answers; shorter than `provision.record.LEASE`."""

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who the tool is to a BMC."""

    user: str
    password: str = field(repr=False)


def take_out(environment: MutableMapping[str, str] = os.environ) -> Credentials:
    """The user and password that the environment has, or empty ones. No program that is started later inherits them."""
    return Credentials(environment.pop(USER, ""), environment.pop(PASSWORD, ""))


def credentials(host: str, given: Credentials) -> Credentials:
    """Those for a host's BMC: of the file that the environment names, or what was `given` by the environment itself.

    Raises:
        MappingError: there are none, or the file can be read by others.
    """
    if named := os.environ.get(FILE):
        return _from_file(Path(named), host)
    if not given.user or not given.password:
        raise MappingError(
            f"host {host}: no user and password for its BMC: name a file with {FILE}, or set {USER} and {PASSWORD}"
        )
    return given


def _from_file(file: Path, host: str) -> Credentials:
    try:
        with file.open(encoding="utf-8") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            if mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise MappingError(f"{file}: others than its owner can read it: `chmod 600 {file}`")
            content = yaml.safe_load(opened)
    except OSError as error:
        raise MappingError(f"{file}: {error.strerror}: name the file with the BMCs' passwords with {FILE}") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        # What a parser says of it may quote a password.
        raise MappingError(f"{file}: no YAML: write `{host}: {{user: ..., password: ...}}`") from None
    entry = (content.get(host) or content.get("default")) if isinstance(content, dict) else None
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("user", "password")):
        raise MappingError(
            f"{file}: nothing for host {host}: write `{host}: {{user: ..., password: ...}}`, or the same for `default`"
        )
    return Credentials(entry["user"], entry["password"])


class RedfishMachine:
    """The machine that this URL names, like https://198.51.100.9/redfish/v1/Systems/1."""

    def __init__(self, host: str, url: str, known: Credentials, networks: Networks, ca: str | None = None) -> None:
        # It takes half a second, which no other command should wait for.
        import sushy  # noqa: PLC0415

        # What it logs of a request may hold headers; what is wrong is in its exceptions.
        logging.getLogger("sushy").setLevel(logging.CRITICAL)
        self._sushy = sushy
        self._what = f"the BMC of host {host} at {urlsplit(url).netloc}"
        self._path = urlsplit(url).path
        self._url = url
        self._known = known
        self._networks = networks
        self._ca = ca
        self._root: Any = None

    def is_on(self) -> bool:
        return self._ask(_on)

    def turn_on(self) -> None:
        self._reset(self._sushy.ResetType.ON, on=True)

    def turn_off(self) -> None:
        self._reset(self._sushy.ResetType.FORCE_OFF, on=False)

    def boot_from(self, image: str) -> None:
        source = self._sushy.BootSource.CD if image else self._sushy.BootSource.PXE
        once = self._sushy.BootSourceOverrideEnabled.ONCE

        def set_it(system: Any) -> None:
            media = self._media(system) if image else None
            if media and media.inserted and media.image != image:
                media.eject_media()
            if media and not (media.inserted and media.image == image):
                media.insert_media(image)
            system.set_system_boot_options(target=source, enabled=once)
            # It may have done nothing about it, and would boot what the last tenant has left on the disk.
            system.refresh(force=True)
            if media:
                media.refresh(force=True)
            if system.boot.target != source or (media and media.image != image):
                told = image or "the network"
                raise MachineError(f"{self._what} was told to boot from {told}, and has not taken it: look at its log")

        self._ask(set_it)

    def eject(self) -> None:
        def take_away(system: Any) -> None:
            for media in self._drives(system):
                if media.inserted:
                    media.eject_media()

        self._ask(take_away)

    def _reset(self, how: Any, *, on: bool) -> None:
        def ask_for_it(system: Any) -> None:
            if _on(system) != on:
                system.reset_system(how)

        self._ask(ask_for_it)

    def _media(self, system: Any) -> Any:
        kinds = {self._sushy.VirtualMediaType.CD, self._sushy.VirtualMediaType.DVD}
        for media in self._drives(system):
            if kinds & set(media.media_types or ()):
                return media
        raise MachineError(f"{self._what} has no virtual CD: boot from the network, without --image")

    def _drives(self, system: Any) -> Iterator[Any]:
        """Where virtual media are: at the system by newer schemas, at its manager by older ones."""
        try:
            yield from system.virtual_media.get_members()
        except self._sushy.exceptions.MissingAttributeError:
            for manager in system.managers:
                yield from manager.virtual_media.get_members()

    def _ask(self, question: Callable[[Any], Answer]) -> Answer:
        with self._explained(), _bounded(f"{self._what} has not done it within {_WHOLE_SECONDS:g} s: reset it"):
            self._root = self._root or self._open()
            system = self._root.get_system(self._path)
            # Otherwise it is as it was when it was first asked.
            system.refresh(force=True)
            return question(system)

    def _open(self) -> Any:
        # With Sushy, for the same reason.
        from provision.https import ControlNetwork  # noqa: PLC0415

        origin = f"https://{urlsplit(self._url).netloc}"
        connector = self._sushy.connector.Connector(
            origin,
            verify=self._ca or True,
            default_request_timeout=_SECONDS,
            connect_timeout=_CONNECT_SECONDS,
            server_side_retries=1,
            server_side_retries_delay=1,
        )
        session = connector._session  # noqa: SLF001 - it offers no other way
        # Proxies and passwords that the environment or .netrc names are for other places.
        session.trust_env = False
        session.adapters.clear()
        session.mount("", ControlNetwork(self._what, origin, self._networks))
        auth = self._sushy.auth.BasicAuth(self._known.user, self._known.password)
        # A BMC may say that its messages are explained somewhere on the Internet: that, too, is asked by this alone.
        return self._sushy.Sushy(origin, auth=auth, connector=connector, public_connector=connector)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        errors = self._sushy.exceptions
        try:
            yield
        except MappingError:
            raise
        except errors.AccessError:
            raise MachineError(f"{self._what} refuses the user or the password: look in {FILE} or {USER}") from None
        except errors.ConnectionError as error:
            raise MachineError(f"{self._what} {self._unreachable(str(error))}") from None
        except errors.ResourceNotFoundError:
            raise MachineError(f"{self._what} knows no system {self._path}: mend `bmc` of the host's row") from None
        except errors.SushyError as error:
            text = self._harmless(str(error))
            raise MachineError(f"{self._what} does not do it: {text}: look at its own log, then try again") from None
        except Exception as error:  # noqa: BLE001 - whatever it has answered, and Sushy has not looked at
            text = self._harmless(f"{type(error).__name__}: {error}")
            raise MachineError(f"{self._what} answers what is no Redfish ({text}): look what it is") from None

    def _harmless(self, said: str) -> str:
        """What a BMC has said: without the password, which it knows, and without what a terminal would obey."""
        user, password = self._known.user, self._known.password
        for secret in (base64.b64encode(f"{user}:{password}".encode()).decode(), password):
            said = said.replace(secret, "***")
        return "".join(char if char.isprintable() else "?" for char in " ".join(said.split()))[:200]

    def _unreachable(self, why: str) -> str:
        if "CERTIFICATE_VERIFY_FAILED" in why or "certificate" in why:
            return f"shows a certificate that is not trusted: name the authority's file with {CA}"
        if "timed out" in why:
            return f"does not answer within {_SECONDS} s: look whether it hangs, and reset it"
        return "cannot be reached: look at its cable to the control network, and at `bmc` of the host's row"


@contextmanager
def _bounded(else_say: str) -> Iterator[None]:
    """Break off what takes longer than `_WHOLE_SECONDS`: who sends a byte now and then is never silent."""

    def give_up(_signum: int, _frame: FrameType | None) -> None:
        raise MachineError(else_say)

    before = signal.signal(signal.SIGALRM, give_up)
    # And again: what is raised in some places is not passed on.
    signal.setitimer(signal.ITIMER_REAL, _WHOLE_SECONDS, 1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _on(system: Any) -> bool:
    """What is on the way to either is not there yet: DSP0268, PowerState."""
    return system.power_state is not None and system.power_state.value in ("On", "PoweringOff", "Paused")
