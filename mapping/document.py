"""A YAML file -> the rows it wants, or every reason why not, each with its line.

The file is read as nodes: a scalar stays the text that was written, so that YAML 1.1 makes no number of a MAC address
and no boolean of a host called `no`, and each knows its line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import yaml

from mapping import values, wanted
from mapping.wanted import FIELDS, TAKEN, Content, Fault, Key, Row, Value

try:
    from yaml import CSafeLoader as _Loader
except ImportError:  # PyYAML built without libyaml: five times slower
    from yaml import SafeLoader as _Loader  # type: ignore[assignment]

SECTIONS: Final = {"vpcs": "Vpc", "hosts": "Host", "groups": "SecurityGroup", "ports": "Port"}
"""Section of a file -> the table whose rows it has."""
_MAX_DEPTH: Final = 8
"""Deepest nesting that is looked at. A valid file nests four deep; libyaml's composer dies of some thousands."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that is wrong in the file, as one line for a person."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}"


@dataclass(frozen=True, slots=True)
class Document:
    """What a file says. `problems` are those that show without a look at the database, in order of line."""

    file: str
    rows: Content
    lines: dict[tuple[str, Key, str], int]
    problems: tuple[Problem, ...]

    def locate(self, faults: Iterable[Fault]) -> list[Problem]:
        """Faults of rows, each at its line: the field's, or else the row's."""
        return [Problem(self.file, self._line(fault), fault.text) for fault in faults]

    def _line(self, fault: Fault) -> int:
        row = self.lines.get((fault.table, fault.key, ""), 1)
        return self.lines.get((fault.table, fault.key, fault.column), row)


def read(data: bytes, file: str) -> Document:
    """What these bytes of a file of this name say. Never raises: what is wrong is in `problems`."""
    reader = _Reader(file)
    try:
        root = _compose(data)
    except _NotYamlError as error:
        reader.problem(error.line, error.text)
    else:
        reader.read(root)
    return Document(file, reader.rows, reader.lines, tuple(sorted(reader.problems)))


class _NotYamlError(Exception):
    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line
        self.text = text


def _compose(data: bytes) -> yaml.Node:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _NotYamlError(line, f"byte {data[error.start]:#04x}: not UTF-8: save the file as UTF-8") from None
    try:
        _check_shape(text)
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = _line(error.problem_mark)
        raise _NotYamlError(line, f"{_quote(text, line)}: {error.problem}: {_mend(text, line)}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _NotYamlError(line, f"{_quote(text, line)}: a control character: remove it") from None
    if root is None:
        raise _NotYamlError(1, "nothing: the file is empty: describe `vpcs`, `hosts`, `groups` or `ports`")
    return root


def _check_shape(text: str) -> None:
    """Refuse what a small file could blow up by, before anything is built from it."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        line = _line(event.start_mark)
        if isinstance(event, yaml.AliasEvent):
            raise _NotYamlError(line, f"alias '*{event.anchor}': aliases are not read: write the value out")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _MAX_DEPTH:
                raise _NotYamlError(line, f"{_quote(text, line)}: nested too deeply: see examples/two-hosts.yaml")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _quote(text: str, line: int) -> str:
    lines = text.splitlines()
    # An unfinished quote or bracket shows only at the end of the file.
    return repr(lines[line - 1].strip()[:40]) if line <= len(lines) else "end of file"


def _mend(text: str, line: int) -> str:
    lines = text.splitlines()
    found = lines[line - 1] if line <= len(lines) else ""
    if "\t" in found[: len(found) - len(found.lstrip())]:
        return "indent with spaces, not tabs"
    return "check colons, quotes, brackets and indentation here and just above"


_Pair = tuple[str, int, yaml.Node]


class _Reader:
    """Walks the nodes of one file."""

    def __init__(self, file: str) -> None:
        self.rows = wanted.empty()
        self.lines: dict[tuple[str, Key, str], int] = {}
        self.problems: list[Problem] = []
        self._file = file

    def problem(self, line: int, text: str) -> None:
        self.problems.append(Problem(self._file, line, text))

    def read(self, root: yaml.Node) -> None:
        for section, _, node in self._pairs(root, "the file", SECTIONS) or []:
            for name, line, row_node in self._pairs(node, section) or []:
                if self._checked(line, values.parse_name, name) is not None:
                    self._row(SECTIONS[section], name, line, row_node)

    def _row(self, table: str, name: str, line: int, node: yaml.Node) -> None:
        key, row = (name,), Row()
        what = wanted.describe(table, key)
        self.rows[table][key] = row
        self.lines[table, key, ""] = line
        fields, known = FIELDS[table], [*FIELDS[table], *(["addresses"] if table == "Port" else [])]
        missing = [word for word, field in fields.items() if field.required]
        addresses: list[tuple[int, str]] = []
        pairs = self._pairs(node, what, known)
        if pairs is None:
            return
        for word, field_line, value in pairs:
            if word in missing:
                missing.remove(word)
            if word == "addresses":
                addresses = self._items(value, f"addresses of {what}") or []
                continue
            field = fields[word]
            self.lines[table, key, field.column] = field_line
            parsed = self._field(field, f"{word} of {what}", value)
            if parsed is not None:
                row[field.column] = parsed
        for word in missing:
            self.problem(line, f"{what}: has no `{word}`: add `{word}: ...`")
        for fault in wanted.complete(table, key, row):
            self.problem(self.lines.get((table, key, fault.column), line), fault.text)
        self._addresses(name, row.get("vpc"), addresses)

    def _field(self, field: wanted.Field, what: str, node: yaml.Node) -> Value:
        """The field's value, or None when it is wrong, which is then said."""
        if field.pairs:
            return self._pairs_field(field, what, node)
        if field.many:
            items = self._items(node, what)
            parsed = [self._checked(line, field.parse, text) for line, text in items or []]
            return None if items is None or None in parsed else tuple(sorted({str(value) for value in parsed}))
        if not isinstance(node, yaml.ScalarNode):
            self.problem(_line(node.start_mark), f"{what}: a list or mapping stands here: write a single value")
            return None
        if not node.value:
            self.problem(_line(node.start_mark), f"{what}: has no value: give one, or remove the line")
            return None
        return self._checked(_line(node.start_mark), field.parse, node.value)

    def _pairs_field(self, field: wanted.Field, what: str, node: yaml.Node) -> Value:
        pairs = self._pairs(node, what)
        if pairs is None:
            return None
        parsed: list[Value] = []
        for word, line, value in pairs:
            if not isinstance(value, yaml.ScalarNode):
                self.problem(line, f"{word!r} of {what}: a list or mapping stands here: write a single value")
                return None
            parsed.append(self._checked(line, field.parse, f"{word}={value.value}"))
        return None if None in parsed else tuple(sorted(map(str, parsed)))

    def _addresses(self, port: str, vpc: Value, addresses: list[tuple[int, str]]) -> None:
        for line, text in addresses:
            if self._checked(line, values.parse_ip, text) is None or vpc is None:
                continue
            key = (str(vpc), text)
            if taken := self.rows["Mapping"].get(key):
                before = self.lines["Mapping", key, ""]
                said = TAKEN["Mapping", "ip"].format(vpc=vpc, ip=text, owner=f"{taken['port']} (line {before})")
                self.problem(line, said)
                continue
            self.rows["Mapping"][key] = {"port": port}
            self.lines["Mapping", key, ""] = line

    def _checked(self, line: int, parse: Callable[[str], object], text: str) -> Value:
        try:
            value = parse(text)
        except ValueError as error:
            self.problem(line, str(error))
            return None
        return value if isinstance(value, int) else text

    def _pairs(self, node: yaml.Node, what: str, known: Iterable[str] | None = None) -> list[_Pair] | None:
        """(Key, line, value) of a mapping whose keys are texts, once each, and known ones; None if it is no mapping.

        A key that is probably a known one misspelt is given as that one, so that one slip gets one line.
        """
        if _is_nothing(node):
            return []
        if not isinstance(node, yaml.MappingNode):
            kind = "a list" if isinstance(node, yaml.SequenceNode) else f"the text {node.value[:40]!r}"
            self.problem(_line(node.start_mark), f"{what}: {kind} stands here: write `name: ...` pairs, indented")
            return None
        seen: dict[str, _Pair] = {}
        misspelt: list[_Pair] = []
        for key, value in node.value:
            line = _line(key.start_mark)
            if not isinstance(key, yaml.ScalarNode):
                self.problem(line, f"{what}: a list or mapping stands as a key: use a plain name")
            elif key.value in seen:
                first = seen[key.value][1]
                self.problem(line, f"{key.value[:70]!r} of {what}: given on line {first} already: remove one")
            elif known is not None and key.value not in known:
                self.problem(line, f"key {key.value[:70]!r} of {what}: not known: {wanted.suggest(key.value, known)}")
                misspelt.append((wanted.nearest(key.value, known) or "", line, value))
            else:
                seen[key.value] = (key.value, line, value)
        for word, line, value in misspelt:
            if word:
                seen.setdefault(word, (word, line, value))
        return list(seen.values())

    def _items(self, node: yaml.Node, what: str) -> list[tuple[int, str]] | None:
        """(Line, text) of a list of texts; None if it is something else."""
        if _is_nothing(node):
            return []
        if not isinstance(node, yaml.SequenceNode):
            self.problem(_line(node.start_mark), f"{what}: a list belongs here: write it in brackets, like [10.0.0.1]")
            return None
        for item in node.value:
            if not isinstance(item, yaml.ScalarNode):
                text = f"{what}: a list or mapping stands in the list: write single values"
                self.problem(_line(item.start_mark), text)
                return None
        return [(_line(item.start_mark), item.value) for item in node.value]


def _is_nothing(node: yaml.Node) -> bool:
    """`key:` with nothing after it."""
    return isinstance(node, yaml.ScalarNode) and not node.value and not node.style


def _line(mark: object) -> int:
    return int(getattr(mark, "line", 0)) + 1
