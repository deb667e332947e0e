"""What is damage in a cluster's member's file, and what is a record that was not written whole."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from mapping import cluster
from mapping.errors import MappingError


def record(number: int, column: str = "index") -> bytes:
    """As ovsdb-server writes it (ovsdb(5))."""
    text = json.dumps({column: number}).encode() + b"\n"
    return b"OVSDB CLUSTER %d %s\n" % (len(text), hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()) + text


RECORDS = [record(1, "prev_index"), record(2), record(2, "commit_index"), record(3)]


def test_every_byte_that_is_wrong_before_the_last_record_is_damage_where_it_is(tmp_path: Path) -> None:
    file, whole, place = tmp_path / "mapping.db", b"".join(RECORDS), 0
    for each in RECORDS[:-1]:
        for offset in range(place, place + len(each)):
            content = bytearray(whole)
            content[offset] ^= 1
            file.write_bytes(content)
            assert cluster.damage(file) == place, offset
        place += len(each)


def test_a_last_record_that_is_not_whole_is_none(tmp_path: Path) -> None:
    file, whole = tmp_path / "mapping.db", b"".join(RECORDS)
    for length in range(len(whole) - len(RECORDS[-1]), len(whole) + 1):
        file.write_bytes(whole[:length])
        assert cluster.damage(file) is None, length
    file.write_bytes(whole + bytes(100))
    assert cluster.damage(file) is None


@pytest.mark.parametrize(
    ("there", "after"),
    [
        (RECORDS[:1], record(3)),
        (RECORDS[:1], record(2, "commit_index")),
        (RECORDS, record(5)),
        (RECORDS, record(4, "commit_index")),
    ],
)
def test_an_entry_that_is_left_out_is_damage_where_the_next_record_is(
    tmp_path: Path, there: list[bytes], after: bytes
) -> None:
    """As after the disk was full: each record that is there is whole."""
    file = tmp_path / "mapping.db"
    file.write_bytes(b"".join([*there, after]))
    assert cluster.damage(file) == sum(map(len, there))


def test_an_entry_may_take_the_place_of_one_that_another_leader_had_sent(tmp_path: Path) -> None:
    file = tmp_path / "mapping.db"
    file.write_bytes(b"".join([*RECORDS, record(3), record(3, "commit_index"), record(4)]))
    assert cluster.damage(file) is None


def test_what_is_no_members_file_is_left_where_it_is(tmp_path: Path) -> None:
    file = tmp_path / "mapping.db"
    for content in (b"OVSDB JSON 5 abc\n", b"somebody's letter"):
        file.write_bytes(content)
        with pytest.raises(MappingError, match="is no cluster member's"):
            cluster.prepare(file, "ssl:198.51.100.1:6644", ["ssl:198.51.100.2:6644"])
        cluster.prepare(file, "", [])
        assert file.read_bytes() == content
