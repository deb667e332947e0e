"""What is put on machines: units that no run of failures ends for good, and a package of all sources, no other file."""

from __future__ import annotations

import subprocess
from configparser import RawConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNITS = [*ROOT.glob("topo/deploy/*.service"), *ROOT.glob("vagrant/*.service")]
PACKAGED = ("controller", "explain", "flows", "mapping", "provision", "topo")


def read(unit: Path) -> RawConfigParser:
    # A key may stand there more than once, and names are not all in small letters.
    parsed = RawConfigParser(strict=False, interpolation=None)
    parsed.optionxform = str  # type: ignore[assignment,method-assign]  # as the manual says it is to be set
    parsed.read_string(unit.read_text())
    return parsed


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_starts_again_until_what_it_needs_is_there(unit: Path) -> None:
    parsed = read(unit)
    assert parsed["Service"]["Restart"] in {"always", "on-failure"}
    assert parsed["Unit"]["StartLimitIntervalSec"] == "0", "or systemd gives it up after five starts in ten seconds"
    assert "RestartSec" in parsed["Service"]


@pytest.mark.parametrize("name", ["lockgate-controller", "lockgate-mapping"])
def test_who_serves_all_hosts_may_have_a_connection_to_each(name: str) -> None:
    service = read(ROOT / f"topo/deploy/{name}.service")["Service"]
    assert int(service["LimitNOFILE"]) >= 1 << 16, "or it is 1,024"


def test_the_package_is_made_of_every_source_and_of_nothing_that_a_run_leaves() -> None:
    said = subprocess.run(
        ["make", "--print-data-base", "--dry-run", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    (line,) = [line for line in said.splitlines() if line.startswith("SOURCES := ")]
    files = [path for folder in PACKAGED for path in (ROOT / folder).rglob("*") if path.is_file()]
    wanted = {str(path.relative_to(ROOT)) for path in files if path.parent.name != "__pycache__"}
    wanted |= {"README.md", "LICENSE", "pyproject.toml", "requirements.txt", "build-constraints.txt"}
    assert set(line.split()[2:]) == wanted
