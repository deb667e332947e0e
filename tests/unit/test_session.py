"""The splitter cuts the same objects out of a stream, however the network has cut it."""

import itertools
import json
import socket
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapping.session import BACKOFF_MS, Message, Session, Splitter, check_remote

TEXT = st.text() | st.text(alphabet='{}[]"\\ é\u2028🐘')
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.lists(st.dictionaries(TEXT, JSON, max_size=4), max_size=5)


def pieces(stream: bytes, cuts: Iterable[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return [stream[start:end] for start, end in itertools.pairwise(places)]


@given(OBJECTS, st.lists(st.integers(min_value=0), max_size=20), st.booleans(), st.sampled_from(["", " ", "\n\t"]))
def test_any_cut(objects: list[Message], cuts: list[int], ascii_only: bool, between: str) -> None:
    texts = [json.dumps(one, ensure_ascii=ascii_only) for one in objects]
    stream = between.join(texts).encode()
    splitter = Splitter()
    found = [message for piece in pieces(stream, cuts) for message in splitter.feed(piece)]
    assert found == [json.loads(text.encode()) for text in texts]


@given(OBJECTS)
def test_byte_by_byte(objects: list[Message]) -> None:
    stream = b"".join(json.dumps(one).encode() for one in objects)
    splitter = Splitter()
    assert [message for byte in stream for message in splitter.feed(bytes([byte]))] == objects


@given(st.binary(max_size=200) | st.text(alphabet='{}[]":,\\ 1a').map(str.encode), st.lists(st.integers(0), max_size=5))
def test_junk_is_an_error_or_nothing(junk: bytes, cuts: list[int]) -> None:
    splitter = Splitter()
    try:
        for piece in pieces(junk, cuts):
            assert all(isinstance(message, dict) for message in splitter.feed(piece))
    except ValueError:
        pass


@pytest.mark.parametrize(
    "junk",
    [
        b"HTTP/1.1 400\r\n",
        b"}",
        b"[1]{}",
        b"5{}",
        b"{}x",
        b'{"a":}',
        b"}{",
        b'"{',
        b'{"a":"\xff"}',
        b'{"a":' * 9999 + b"}" * 9999,
    ],
)
def test_junk_is_refused_by_the_next_object_at_the_latest(junk: bytes) -> None:
    splitter = Splitter()

    def feed() -> None:
        for piece in (junk, b"{}"):
            splitter.feed(piece)

    with pytest.raises(ValueError, match=r"."):
        feed()


@pytest.mark.parametrize(
    "remote", ["", "foo", "tcp:", "tcp:host:6640", "tcp:127.0.0.1", "tcp:127.0.0.1:0", "ssl:::1", "unix:"]
)
def test_wrong_remotes_are_refused(remote: str) -> None:
    with pytest.raises(ValueError, match="write ssl:IP:PORT, tcp:IP:PORT or unix:PATH"):
        Session([remote])


def test_remotes_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert check_remote("unix:a.sock") == f"unix:{tmp_path}/a.sock"
    assert check_remote("tcp:[::1]:6640") == "tcp:[::1]:6640"


def test_every_server_is_tried_in_turn_and_then_it_is_said(tmp_path: Path) -> None:
    session = Session([f"unix:{tmp_path}/a", f"unix:{tmp_path}/b"])
    tried = []
    deadline = time.monotonic() + 5
    while not session.unreachable and time.monotonic() < deadline:
        session.run()
        tried.append(session.remote)
        session.block(100)
    assert list(dict.fromkeys(tried)) == [f"unix:{tmp_path}/a", f"unix:{tmp_path}/b"]
    assert session.error == "No such file or directory"
    session.close()


def test_a_server_that_talks_junk_is_tried_again_but_not_in_a_storm(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "junk"))
        server.listen()
        server.setblocking(False)
        session = Session([f"unix:{tmp_path}/junk"])
        connections = 0
        deadline = time.monotonic() + 2.5 * BACKOFF_MS / 1000
        while time.monotonic() < deadline:
            assert session.run() == []
            session.block(20)
            try:
                accepted, _ = server.accept()
            except BlockingIOError:
                continue
            with accepted:
                accepted.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            connections += 1
        session.close()
    assert 2 <= connections <= 3
