"""Machines whose BMC speaks Redfish (DMTF DSP0266), by the `sushy` library.

User and password come from the environment or a file that only its owner can read; they are never in the database, on
the command line or in a message. Only HTTPS is spoken, and the BMC's certificate is checked.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import yaml

from mapping.errors import MappingError
from provision.machine import MachineError

USER, PASSWORD, FILE, CA = "LOCKGATE_BMC_USER", "LOCKGATE_BMC_PASSWORD", "LOCKGATE_BMC_CREDENTIALS", "LOCKGATE_BMC_CA"
"""Environment variables. FILE names a YAML file of `host: {user: ..., password: ...}`, in which `default` stands for
every other host. CA names the file of the authorities that sign the BMCs' certificates; the system's unless given."""

_SECONDS: Final = 20
_CONNECT_SECONDS: Final = 5

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who the tool is to a BMC."""

    user: str
    password: str = field(repr=False)


def credentials(host: str, environment: Callable[[str], str | None] = os.environ.get) -> Credentials:
    """Those for a host's BMC.

    Raises:
        MappingError: there are none, or the file can be read by others.
    """
    if named := environment(FILE):
        return _from_file(Path(named), host)
    user, password = environment(USER), environment(PASSWORD)
    if not user or not password:
        raise MappingError(
            f"host {host}: no user and password for its BMC: name a file with {FILE}, or set {USER} and {PASSWORD}"
        )
    return Credentials(user, password)


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

    def __init__(self, host: str, url: str, known: Credentials, ca: str | None = None) -> None:
        # It takes half a second, which no other command should wait for.
        import sushy  # noqa: PLC0415

        # What it logs of a request may hold headers; what is wrong is in its exceptions.
        logging.getLogger("sushy").setLevel(logging.CRITICAL)
        self._sushy = sushy
        self._what = f"the BMC of host {host} at {urlsplit(url).netloc}"
        self._path = urlsplit(url).path
        self._url = url
        self._known = known
        self._ca = ca
        self._root: Any = None

    def is_on(self) -> bool:
        return self._ask(lambda system: _is_on(system.power_state.value if system.power_state else ""))

    def turn_on(self) -> None:
        self._reset(self._sushy.ResetType.ON, on=True)

    def turn_off(self) -> None:
        self._reset(self._sushy.ResetType.FORCE_OFF, on=False)

    def boot_from(self, image: str) -> None:
        source = self._sushy.BootSource.CD if image else self._sushy.BootSource.PXE

        def set_it(system: Any) -> None:
            if image:
                media = self._media(system)
                if media.inserted and media.image != image:
                    media.eject_media()
                if not media.inserted or media.image != image:
                    media.insert_media(image)
            system.set_system_boot_options(target=source, enabled=self._sushy.BootSourceOverrideEnabled.ONCE)

        self._ask(set_it)

    def eject(self) -> None:
        def take_away(system: Any) -> None:
            for media in self._drives(system):
                if media.inserted:
                    media.eject_media()

        self._ask(take_away)

    def _reset(self, how: Any, *, on: bool) -> None:
        def ask_for_it(system: Any) -> None:
            if _is_on(system.power_state.value if system.power_state else "") != on:
                system.reset_system(how)

        self._ask(ask_for_it)

    def _media(self, system: Any) -> Any:
        for media in self._drives(system):
            if any(
                kind in media.media_types
                for kind in (self._sushy.VirtualMediaType.CD, self._sushy.VirtualMediaType.DVD)
            ):
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
        with self._explained():
            if self._root is None:
                auth = self._sushy.auth.BasicAuth(self._known.user, self._known.password)
                self._root = self._sushy.Sushy(
                    f"https://{urlsplit(self._url).netloc}",
                    auth=auth,
                    verify=self._ca or True,
                    read_timeout=_SECONDS,
                    connect_timeout=_CONNECT_SECONDS,
                    server_side_retries=1,
                    server_side_retries_delay=1,
                )
            system = self._root.get_system(self._path)
            # Otherwise it is as it was when it was first asked.
            system.refresh(force=True)
            return question(system)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        errors = self._sushy.exceptions
        try:
            yield
        except errors.AccessError:
            raise MachineError(f"{self._what} refuses the user or the password: look in {FILE} or {USER}") from None
        except errors.ConnectionError as error:
            raise MachineError(f"{self._what} {self._unreachable(str(error))}") from None
        except errors.ResourceNotFoundError:
            raise MachineError(f"{self._what} knows no system {self._path}: mend `bmc` of the host's row") from None
        except errors.SushyError as error:
            text = " ".join(str(error).split())[:200]
            raise MachineError(f"{self._what} does not do it: {text}: look at its own log, then try again") from None

    def _unreachable(self, why: str) -> str:
        if "CERTIFICATE_VERIFY_FAILED" in why or "certificate" in why:
            return f"shows a certificate that is not trusted: name the authority's file with {CA}"
        if "timed out" in why:
            return f"does not answer within {_SECONDS} s: look whether it hangs, and reset it"
        return "cannot be reached: look at its cable to the control network, and at `bmc` of the host's row"


def _is_on(power_state: str) -> bool:
    """What is on the way to either is not there yet: DSP0268, PowerState."""
    return power_state in ("On", "PoweringOff", "Paused")
