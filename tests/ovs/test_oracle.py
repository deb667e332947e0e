"""What becomes of frames, as the documents say (`oracle`) and as real switches say (`oracle_switches`), at random.

Hypothesis makes a mapping, as a file would have it, and frames for it; each run makes the same ones. What differs is
shown with all that it takes to look at it again: the document, the frame, and what the switches said of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from flows.pipeline import BR_GUEST, BR_NIC, METERED, reasons
from mapping import document as file
from mapping import wanted
from tests.conftest import Figure
from tests.ovs.oracle import Document, Oracle, Verdict
from tests.ovs.oracle_documents import Sent, documents, frames, rows
from tests.ovs.oracle_frames import Frame
from tests.ovs.oracle_switches import Switches

DOCUMENTS = 26
FRAMES = 150
"""For each document."""
TURNS = 4
OUTCOMES = {"delivered", "answered", "asked", "too big", "to the kernel", "out"}
"""Each must have been met, and each reason to drop; but for what meters keep back, of which no trace tells."""


@pytest.fixture(scope="module")
def switches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Switches]:
    with Switches(tmp_path_factory.mktemp("lg")) as switches:
        yield switches


def judged(judge: Oracle | Switches, sent: Sent) -> Verdict:
    if isinstance(sent.what, Frame):
        return judge.from_guest(sent.host, sent.place, sent.what, sent.states)
    if sent.place == "wire":
        return judge.from_wire(sent.host, sent.what, sent.states[1])
    return judge.from_kernel(sent.host, sent.what)


def assert_valid(document: Document) -> str:
    """The document as a file, which Lockgate takes."""
    text = yaml.safe_dump(document, sort_keys=False)
    read = file.read(text.encode(), "oracle.yaml")
    assert not read.problems, (read.problems, text)
    assert not list(wanted.check(read.rows, read.rows)), text
    return text


def test_the_switches_agree_with_what_the_documents_say(switches: Switches, figure: Figure) -> None:
    met: Counter[str] = Counter()
    tracked: Counter[tuple[tuple[str, str], ...]] = Counter()

    @settings(
        max_examples=DOCUMENTS,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def agree(data: st.DataObject) -> None:
        document = data.draw(documents())
        text = assert_valid(document)
        switches.program(rows(document))
        oracle = Oracle(document)
        for sent in data.draw(st.lists(frames(document), min_size=FRAMES, max_size=FRAMES)):
            expected, found = judged(oracle, sent), judged(switches, sent)
            trace = "\n\n".join(switches.traces)
            assert (found, switches.tracked) == (expected, oracle.tracked), (
                f"{sent}\nsay the documents: {expected}, tracked for {oracle.tracked}\n"
                f"say the switches:  {found}, tracked for {switches.tracked}\n{text}\n{trace}"
            )
            tracked[tuple(oracle.tracked)] += 1
            met[expected.reason or expected.what] += 1

    of_tables = {*reasons(BR_GUEST), *reasons(BR_NIC)} - METERED
    wanted_all = {each.label for each in of_tables} | OUTCOMES
    # What Hypothesis makes of a seed changes with the code around it: a rare reason may want another turn.
    for turn in range(TURNS):
        if not met.keys() >= wanted_all:
            seed(turn)(agree)()
    both_ends = sum(count for ports, count in tracked.items() if len(ports) > 1)
    figure("frames in zones of the tracker", sum(tracked.values()) - tracked[()], f"of both ends {both_ends}")
    figure("frames", sum(met.values()), f"of which {dict(met.most_common())}; {switches.asked} traces")
    assert met.keys() >= wanted_all
    assert both_ends
