"""Data flows one way, and imports with it: docs/architecture.md draws which folder may import which."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# What files may import of ours, and of Ryu: the most exact pattern that fits a file counts. A name stands for itself
# and what is in it.
MAY_IMPORT: dict[str, set[str]] = {
    "mapping/*.py": {"mapping"},
    "mapping/cli.py": {"mapping", "explain.cli", "provision.cli", "topo.bridges_cli", "topo.lab_cli"},
    "flows/*.py": {"flows", "mapping.model"},
    "flows/incremental.py": {"flows", "mapping.model", "mapping.linked"},
    "explain/*.py": {"explain", "flows", "mapping"},
    "provision/*.py": {"provision", "explain", "flows", "mapping"},
    "provision/lab.py": {"provision", "mapping", "topo"},
    "controller/*.py": {"controller", "flows", "mapping", "ryu"},
    "controller/ryu_compat.py": {"eventlet", "controller.kept_socket"},
    "topo/*.py": {"topo", "explain.ofproto", "flows", "mapping"},
    "bench/*.py": {"bench", "topo", "flows", "mapping"},
}
WATCHED = {
    "bench",
    "controller",
    "explain",
    "flows",
    "mapping",
    "provision",
    "topo",
    "tests",
    "eventlet",
    "os_ken",
    "ryu",
}

FILES = sorted(path.relative_to(ROOT) for path in ROOT.glob("*/*.py") if f"{path.parent.name}/*.py" in MAY_IMPORT)


def imports(source: str) -> Iterator[str]:
    """The full name of everything that the source imports, wherever in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative imports are not used here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def allowed(file: Path) -> set[str]:
    return MAY_IMPORT[max((pattern for pattern in MAY_IMPORT if file.match(pattern)), key=len)]


def violations(file: Path, source: str) -> list[str]:
    return [
        name
        for name in imports(source)
        if name.partition(".")[0] in WATCHED
        and not any(name == may or name.startswith(f"{may}.") for may in allowed(file))
    ]


@pytest.mark.parametrize("file", FILES, ids=str)
def test_a_file_imports_only_what_its_folder_may(file: Path) -> None:
    assert violations(file, (ROOT / file).read_text()) == []


def test_every_folder_of_code_has_a_rule() -> None:
    assert {file.parts[0] for file in FILES} == {pattern.partition("/")[0] for pattern in MAY_IMPORT}
    with_code = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert with_code - {"tests"} == {file.parts[0] for file in FILES}


@pytest.mark.parametrize(
    ("file", "source", "found"),
    [
        ("flows/view.py", "from mapping.model import Host\nfrom flows import fields", []),
        ("flows/view.py", "from mapping import model, rows", ["mapping.rows"]),
        ("flows/view.py", "def f():\n    import ryu.lib.hub", ["ryu.lib.hub"]),
        ("flows/view.py", "from mapping.linked import Linked", ["mapping.linked.Linked"]),
        ("mapping/cli.py", "from topo.lab_cli import app", []),
        ("mapping/cli.py", "from topo.lab import Lab", ["topo.lab.Lab"]),
        ("mapping/cli_rows.py", "from explain.cli import trace", ["explain.cli.trace"]),
        ("explain/site.py", "from flows import view\nfrom controller import wire", ["controller.wire"]),
        ("mapping/rows.py", "from topo.lab_cli import app", ["topo.lab_cli.app"]),
        ("topo/lab.py", "import controller.app as app", ["controller.app"]),
        ("controller/fleet.py", "from flows import view\nfrom topo import lab", ["topo.lab"]),
    ],
)
def test_what_may_not_be_is_found(file: str, source: str, found: list[str]) -> None:
    assert violations(Path(file), source) == found


def test_a_command_does_not_take_the_time_to_import_what_only_ryu_needs() -> None:
    program = "import sys, mapping.cli, mapping.session\nassert not {'eventlet', 'ryu'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
