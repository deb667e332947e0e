"""`mn` runs in Debian's Python: what it loads of ours needs nothing but the standard library and Mininet."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
OURS = {"controller", "explain", "flows", "mapping", "topo"}


def loads(file: Path) -> Iterator[str]:
    """The modules that a file imports when it is imported: not those that a function of it imports when called."""
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def all_loaded(first: Path) -> tuple[set[Path], set[str]]:
    """Files of ours that importing this one loads, and the packages of others."""
    files, others, todo = {first}, set(), [first]
    while todo:
        for name in loads(todo.pop()):
            if name.partition(".")[0] not in OURS:
                others.add(name.partition(".")[0])
            elif (file := ROOT / f"{name.replace('.', '/')}.py").exists() and file not in files:
                files.add(file)
                todo.append(file)
    return files, others


def test_mn_needs_no_package_of_the_virtual_environment() -> None:
    files, others = all_loaded(ROOT / "topo/mininet_lab.py")
    assert {file.name for file in files} >= {"mininet_net.py", "mininet_nodes.py", "host.py", "bridges.py"}
    assert others - sys.stdlib_module_names == {"mininet"}


def test_the_other_end_needs_more() -> None:
    _, others = all_loaded(ROOT / "topo/control.py")
    assert "ovs" in others, "otherwise there would be no need for two"
