"""What `make vagrant-test` says of itself, and that it sees whether anything is left: without a virtual machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from topo import private_libvirt, vagrant_check
from topo.netns import CommandError
from topo.vagrant_check import Report

BOX = "lockgate-lab_vagrant_box_image_0_1_box.img"
THERE = {
    "list": "lockgate-control\nlockgate-host-1\nlockgate-host-2\n",
    "net-list": "lockgate-control\nlockgate-substrate\nvagrant-libvirt\nother\n",
    "vol-list": "".join(f"{name}.img /var/{name}.img\n" for name in ("c", "h1", "h2")) + f"{BOX} /var/box.img\n",
}
GONE = {"list": "\n", "net-list": "other\n", "vol-list": f"{BOX} /var/box.img\n"}


class Destroys(vagrant_check._Vagrant):
    """Of what libvirt has, `destroy` leaves what it is told to."""

    def __init__(self, folder: Path, there: dict[str, str], left: dict[str, str]) -> None:
        super().__init__(folder)
        self.listed, self._left = there, left

    def run(self, *args: str, **_env: str) -> str:
        assert args == ("destroy", "--force")
        self.listed = self._left
        return ""

    def virsh(self, what: str, *_args: str) -> str:
        return self.listed[what]


@pytest.mark.parametrize(
    ("there", "left", "wrong"),
    [
        (THERE, GONE, ""),
        (GONE, GONE, "machines: 0"),
        (THERE | {"net-list": ""}, GONE, "networks of the lab"),
        (THERE | {"vol-list": GONE["vol-list"]}, GONE, "disks of machines"),
        (THERE | {"vol-list": THERE["vol-list"].replace(BOX, "box")}, GONE, "disks of the box"),
        (THERE, GONE | {"list": "lockgate-host-2\n"}, "what is left"),
        (THERE, GONE | {"net-list": "vagrant-libvirt\n"}, "what is left"),
        (THERE, GONE | {"vol-list": ""}, "what is left"),
    ],
)
def test_a_destroy_that_is_not_seen_to_work_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: dict[str, str], left: dict[str, str], wrong: str
) -> None:
    vagrant = Destroys(tmp_path, there, left)
    monkeypatch.setattr(private_libvirt, "virsh", vagrant.virsh)
    if wrong:
        with pytest.raises(vagrant_check._WrongError, match=wrong):
            vagrant_check._destroy(vagrant)
    else:
        vagrant_check._destroy(vagrant)


def test_what_libvirt_does_not_answer_is_an_error() -> None:
    with pytest.raises(CommandError, match="no-such-pool"):
        private_libvirt.virsh("vol-list", "no-such-pool")


def test_the_report_says_what_was_done_and_how_long_it_took_even_if_it_failed() -> None:
    times = iter((0.0, 12.4, 20.0, 640.0))
    report = Report(clock=lambda: next(times))
    report.versions.append("Vagrant 2.3.4")
    with report.stage("vagrant validate"):
        pass
    with pytest.raises(TimeoutError), report.stage("vagrant up"):
        raise TimeoutError
    assert str(report).splitlines() == [
        "    12 s  vagrant validate",
        "   620 s  vagrant up",
        "   632 s  all of it",
        "",
        "Vagrant 2.3.4",
    ]
