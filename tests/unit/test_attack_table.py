"""The table in docs/security.md and the attacks that are tried are the same, line by line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.attack.case import Case
from tests.attack.cases import CASES, GUEST, SUBSTRATE

SECURITY = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
FIRST = {"a guest": GUEST, "somebody on the substrate": SUBSTRATE}
"""What stands over the first column -> what is in the last."""


def rows(first: str) -> list[list[str]]:
    """The table whose first column is about this."""
    (body,) = re.findall(rf"^\| {first} \| what .*\n\|[-|]+\n((?:\|.*\n)+)", SECURITY, re.MULTILINE)
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in body.splitlines()]


def fate(case: Case) -> str:
    """As the table says it."""
    bridges = [bridge for _, bridge, reason in case.fate.counted if reason.label == case.fate.word]
    by = [*bridges, *("filter" for _, name in case.fate.noticed if name.startswith("filter "))]
    said = f"{by[0]}, `{case.fate.word}`" if by else f"`{case.fate.word}`"
    return f"{said}, *a limit*" if case.limit else said


@pytest.mark.parametrize("first", FIRST)
def test_the_table_is_the_list_of_attacks(first: str) -> None:
    assert [row[1:] for row in rows(first)] == [[fate(case), f"`{case.name}`"] for case in FIRST[first]]
    assert all(threat for threat, *_ in rows(first))


def test_every_name_is_one_attacks() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    assert all(case.frames for case in CASES)


def test_every_limit_is_explained() -> None:
    (section,) = re.findall(r"^## Limits\n(.*)", SECURITY, re.MULTILINE | re.DOTALL)
    named = set(re.findall(r"`([^`]+)`", section)) & {case.name for case in CASES}
    assert named == {case.name for case in CASES if case.limit}
