"""The shape of what each command of `lockgate` prints under --json, as docs/cli.md says, and whether it is kept."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import typer
import yaml

from mapping import cli

_DOCUMENT: Final = Path(__file__).parents[1] / "docs" / "cli.md"
_PLAIN: Final[dict[str, tuple[type, ...]]] = {
    "text": (str,),
    "number": (int,),
    "flag": (bool,),
    "null": (type(None),),
    "any": (object,),
}


@cache
def shapes() -> dict[str, Any]:
    """What the document says, by command and by name."""
    (block,) = re.findall(r"```yaml\n(# text,.*?)```", _DOCUMENT.read_text(), re.DOTALL)
    found: dict[str, Any] = yaml.safe_load(block)
    return found


@cache
def commands() -> frozenset[str]:
    """Every command that there is, like "port move"."""

    def walk(command: Any, path: tuple[str, ...]) -> Iterator[str]:  # noqa: ANN401 - typer has no public name for it
        if below := getattr(command, "commands", None):
            for name, each in below.items():
                yield from walk(each, (*path, name))
        else:
            yield " ".join(path)

    return frozenset(walk(typer.main.get_command(cli.app), ()))


def command(words: Sequence[str]) -> str:
    """The command among the words of a command line; empty if there is none."""
    said = [word for word in words if not word.startswith("-")]
    pairs = zip(said, [*said[1:], ""], strict=True)
    return next((name for two in pairs for name in (" ".join(two), two[0]) if name in commands()), "")


def check(name: str, printed: str) -> None:
    """That a command has printed what it should: its own shape, or what every command does when it fails."""
    shape = shapes()[name]
    several = isinstance(shape, dict) and "lines" in shape
    for value in _values(printed) if several else [json.loads(printed)]:
        failed = isinstance(value, dict) and value.keys() == {"error", "problems"}
        _check("failure" if failed else shape["lines"] if several else shape, value, name)


def _values(printed: str) -> Iterator[Any]:
    """One after another: of some that come as lines the last may be a failure, which is several lines."""
    while printed := printed.lstrip():
        value, end = json.JSONDecoder().raw_decode(printed)
        yield value
        printed = printed[end:]


def _check(shape: Any, value: Any, at: str) -> None:  # noqa: ANN401 - JSON
    """Raise `AssertionError` where a value is not of a shape."""
    if isinstance(shape, dict):
        _check_keys(shape, value, at)
    elif isinstance(shape, list):
        assert isinstance(value, list), f"{at}: {value!r} is no list"
        for number, each in enumerate(value):
            _check(shape[0], each, f"{at}[{number}]")
    elif shape in _PLAIN:
        right = isinstance(value, _PLAIN[shape]) and (shape != "number" or not isinstance(value, bool))
        assert right, f"{at}: {value!r} is no {shape}"
    elif " or " in shape:
        problems = [problem for each in shape.split(" or ") if (problem := _problem(each, value, at))]
        assert len(problems) <= shape.count(" or "), "; ".join(problems)
    else:
        _check(shapes()[shape], value, at)


def _check_keys(shape: dict[str, Any], value: Any, at: str) -> None:  # noqa: ANN401 - JSON
    assert isinstance(value, dict), f"{at}: {value!r} is no object"
    (any_key, *rest) = shape
    if any_key.isupper() and not rest:
        for key, each in value.items():
            _check(shape[any_key], each, f"{at}.{key}")
        return
    known = {key.strip("()"): each for key, each in shape.items()}
    needed = {key for key in shape if not key.startswith("(")}
    assert needed <= value.keys() <= known.keys(), f"{at}: it has {sorted(value)}, and should have {sorted(shape)}"
    for key, each in value.items():
        _check(known[key], each, f"{at}.{key}")


def _problem(shape: str, value: Any, at: str) -> str:  # noqa: ANN401 - JSON
    try:
        _check(shape, value, at)
    except AssertionError as error:
        return str(error)
    return ""
