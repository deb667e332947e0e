"""Draws what a run has found out: how cost grows with the number of mappings, and how latencies are distributed."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from bench.run import BenchError, Run

try:
    import matplotlib as mpl
    from matplotlib.figure import Figure
except ModuleNotFoundError:  # the extra `bench` of pyproject.toml is not installed
    _INSTALLED = False
else:
    _INSTALLED = True

_LATENCIES: Final = {
    "One mapping changes": ("one mapping changes",),
    "A quiet VPC beside a busy one": ("switch, idle", "switch, busy", "database, idle", "database, busy"),
    "Commit until all hosts have it": ("all hosts, direct", "all hosts, relays"),
}
"""Panels of the plot of latencies, and the series of each; OVN's come after them."""
_STEPS: Final = 200
"""Points of a curve, at most."""


def check(folder: Path) -> None:
    """Make the folder, and raise unless plots can be drawn: before minutes of work, not after.

    Raises:
        BenchError: what they are drawn with is not installed.
        OSError: there can be no such folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not _INSTALLED:
        mend = "`pip install -e .[bench]` (`make bench` does it), or leave --plots out"
        raise BenchError(f"matplotlib is not there: {mend}")


def draw(run: Run, folder: Path) -> list[Path]:
    """Draw what there are series of; return the files."""
    check(folder)
    # Text stays text, and the same figures give the same file.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "lockgate", "font.size": 9, "axes.grid": True})
    drawn = []
    if "growth" in run.series:
        drawn.append(_save(_growth(run), folder / "bench-growth.svg"))
    if panels := _panels(run):
        drawn.append(_save(_latency(run, panels), folder / "bench-latency.svg"))
    return drawn


def _save(figure: Figure, file: Path) -> Path:
    # As for the results: root may have left the old one.
    file.unlink(missing_ok=True)
    figure.savefig(file, metadata={"Date": None})
    return file


def _growth(run: Run) -> Figure:
    mappings, load, cpu, memory, change = zip(*run.series["growth"], strict=True)
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    time, space, single = figure.subplots(1, 3)
    time.plot(mappings, load, "o-", label="start until last flow")
    time.plot(mappings, cpu, "s--", label="CPU of ryu-manager")
    time.set_title("Loading, s")
    space.plot(mappings, memory, "o-", label="ryu-manager")
    space.set_title("Memory, MB")
    single.plot(mappings, change, "o-", label="p50")
    single.set_title("One mapping changes, ms")
    single.set_ylim(bottom=0, top=2 * max(change))
    for axes in (time, space, single):
        axes.set_xscale("log")
        axes.set_xlabel("mappings")
        axes.legend()
    for axes in (time, space):
        axes.set_yscale("log")
    return figure


def _panels(run: Run) -> dict[str, list[str]]:
    panels = {title: [name for name in names if name in run.series] for title, names in _LATENCIES.items()}
    for name in run.series:
        system, _, words = name.partition(", ")
        if system in ("Lockgate", "OVN"):
            panels.setdefault(words, []).append(name)
    return {title: names for title, names in panels.items() if names}


def _latency(run: Run, panels: dict[str, list[str]]) -> Figure:
    """Of each series the share of changes that took at most so long."""
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(10, 2.8 * lines), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    for axes, (title, names) in zip(grid.flat, panels.items(), strict=False):
        for name in names:
            ordered = sorted(value for (value,) in run.series[name])
            shares = sorted({(index * len(ordered) // _STEPS + 1) / len(ordered) for index in range(_STEPS)} | {1.0})
            values = [ordered[round(share * len(ordered)) - 1] for share in shares]
            axes.step(values, shares, where="post", label=name.removesuffix(f", {title}"))
        axes.set_xscale("log")
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("ms")
        axes.legend(fontsize=7)
    return figure
