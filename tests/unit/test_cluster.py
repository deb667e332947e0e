"""What is damage in a cluster's member's file, and what is a record that was not written whole."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from mapping import cluster
from mapping.errors import MappingError


def record(number: int) -> bytes:
    """As ovsdb-server writes it (ovsdb(5))."""
    text = json.dumps({"index": number}).encode() + b"\n"
    return b"OVSDB CLUSTER %d %s\n" % (len(text), hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()) + text


RECORDS = [record(number) for number in range(4)]


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


def test_what_is_no_members_file_is_left_where_it_is(tmp_path: Path) -> None:
    file = tmp_path / "mapping.db"
    for content in (b"OVSDB JSON 5 abc\n", b"somebody's letter"):
        file.write_bytes(content)
        with pytest.raises(MappingError, match="is no cluster member's"):
            cluster.prepare(file, "ssl:198.51.100.1:6644", ["ssl:198.51.100.2:6644"])
        cluster.prepare(file, "", [])
        assert file.read_bytes() == content
