"""What is put on machines: units that no run of failures ends for good."""

from __future__ import annotations

from configparser import RawConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNITS = [*ROOT.glob("topo/deploy/*.service"), *ROOT.glob("vagrant/*.service")]


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
