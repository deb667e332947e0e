"""The lab itself: it comes, goes, and keeps its two networks apart. 2 hosts, 1 VPC, 1 guest on each host."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import shapes
from topo import netns
from topo.capture import send
from topo.host import Host
from topo.lab import Lab
from topo.spec import LabError
from topo.waiting import wait_until

MakeLab = Callable[..., Lab]


def traces(lab: Lab) -> list[str]:
    """Whatever there is of a lab on this machine."""
    processes = [path for path in Path("/proc").glob("[0-9]*/cmdline") if mentions(path, f"{lab.folder}/")]
    return [*netns.names(lab.prefix), *map(str, processes), *([str(lab.folder)] if lab.folder.exists() else [])]


def mentions(path: Path, text: str) -> bool:
    try:
        return text in path.read_text(errors="replace")
    except OSError:
        return False


def links() -> set[str]:
    """The interfaces of the machine itself."""
    return {link["ifname"] for link in json.loads(netns.run(None, ["ip", "-j", "link"]))}


def reach(lab: Lab, to: str = "10.0.0.11") -> None:
    """Guest a reaches an address, at the latest when what has just been started has found its neighbours."""
    wait_until(lambda: lab.guest("a").ping(to), 20, f"an answer from {to}")


def lockgate(*args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "mapping.cli", "lab", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_guests_on_two_hosts_reach_each_other(lab: Lab) -> None:
    reach(lab)
    assert lab.guest("b").ping(lab.guest("a").ip, count=5)


def lasting(lab: Lab) -> set[int]:
    """The lab's processes, without those that one of them has started, which may have ended at the next look."""
    pids = netns.pids(netns.names(lab.prefix))
    return {pid for pid in pids if parent(pid) not in pids | {None}}


def parent(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def test_up_again_keeps_what_runs(lab: Lab, two_hosts: Path) -> None:
    before = lasting(lab)
    assert before
    said: list[str] = []
    again = Lab(lab.name, said.append)
    again.up(two_hosts)
    assert lasting(lab) == before
    assert f"lab {lab.name} is up already" in said
    reach(again)


def test_up_with_another_topology_makes_that(make_lab: MakeLab, two_hosts: Path, tmp_path: Path) -> None:
    lab = make_lab()
    file = tmp_path / "more.yaml"
    file.write_text(
        two_hosts.read_text() + '  c: {vpc: red, host: h2, mac: "02:00:00:00:00:0c", addresses: [10.0.0.12]}\n'
    )
    lab.up(file)
    reach(lab, to="10.0.0.12")


def test_down_leaves_nothing(make_lab: MakeLab) -> None:
    before = links()
    lab = make_lab()
    assert lab.state == "up"
    assert links() == before, "a lab puts no interface on the machine itself"
    lab.down()
    assert lab.state == "down"
    assert traces(lab) == []
    assert links() == before


def test_down_removes_a_lab_whose_making_was_killed(make_lab: MakeLab, two_hosts: Path) -> None:
    lab = make_lab(None)
    making = lockgate("up", "-n", lab.name, "-f", str(two_hosts))
    with making:
        wait_until(lambda: f"{lab.prefix}h-h1" in netns.names(lab.prefix), 20, "the first host")
        making.kill()
    assert Lab(lab.name).state == "broken"
    Lab(lab.name).down()
    assert traces(lab) == []


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_lab_whose_making_is_broken_off_cleans_up_itself(
    make_lab: MakeLab, two_hosts: Path, signum: signal.Signals
) -> None:
    lab = make_lab(None)
    with lockgate("up", "-n", lab.name, "-f", str(two_hosts)) as making:
        wait_until(lambda: f"{lab.prefix}h-h1" in netns.names(lab.prefix), 20, "the first host")
        making.send_signal(signum)
        assert making.wait(20) != 0
    assert traces(lab) == []


def test_up_mends_a_lab_that_is_broken(make_lab: MakeLab, two_hosts: Path) -> None:
    lab = make_lab()
    os.kill(int((lab.host("h1").ovs.folder / "ovs-vswitchd.pid").read_text()), signal.SIGKILL)
    wait_until(lambda: lab.state == "broken", 5, "the lab to notice")
    lab.up(two_hosts)
    reach(lab)


def test_a_lab_that_cannot_be_made_leaves_nothing(make_lab: MakeLab, two_hosts: Path, tmp_path: Path) -> None:
    lab = make_lab(None)
    file = tmp_path / "bad.yaml"
    file.write_text(two_hosts.read_text().replace("02:00:00:00:00:0a", "03:00:00:00:00:0a"))
    with pytest.raises(LabError, match="03:00:00:00:00:0a"):
        lab.up(file)
    assert traces(lab) == []


def test_two_labs_stand_side_by_side(lab: Lab, make_lab: MakeLab) -> None:
    other = make_lab()
    reach(other)
    other.down()
    reach(lab)


def test_control_addresses_cannot_be_reached_from_a_guest_or_the_substrate(lab: Lab) -> None:
    control = ["198.51.100.1", *(host.spec.control.split("/")[0] for host in lab.hosts.values())]
    for address in control:
        assert "1 received" in netns.run(lab.control.namespace, ["ping", "-c1", "-W1", address]), (
            "the test's own premise"
        )
    guest = lab.guest("a")
    netns.ip(lab.substrate, "address add 192.0.2.250/24 dev br0")
    try:
        with lab.host("h1").capture("mgmt", "out") as to_control:
            for address in control:
                assert not guest.ping(address, seconds=0.3)
                netns.ip(
                    guest.namespace,
                    f"neighbour replace {address} lladdr ff:ff:ff:ff:ff:ff dev eth0\nroute replace {address} dev eth0",
                )
                assert not guest.ping(address, seconds=0.3), "on link, to everybody"
                for way in ("via 192.0.2.1", "dev br0"):
                    netns.ip(lab.substrate, f"route replace {address} {way}")
                    with pytest.raises(netns.CommandError):
                        netns.run(lab.substrate, ["ping", "-c1", "-W0.3", address])
        strangers = (bytes.fromhex("02000000000a"), bytes([10, 0, 0, 10]), bytes([192, 0, 2, 250]))
        # In what hosts tell the controller of their flows such addresses stand, too: heads of ARP and IP alone count.
        heads = [frame[:42] for frame in to_control.frames]
        assert not [head for head in heads if any(stranger in head for stranger in strangers)]
    finally:
        netns.ip(lab.substrate, "address flush dev br0")
        for address in control:
            netns.ip(guest.namespace, f"neighbour delete {address} dev eth0\nroute delete {address}")


def test_no_cable_joins_the_two_networks(lab: Lab) -> None:
    joined = {lab.control.namespace, lab.substrate}
    for one in joined:
        for link in netns.run(one, ["ip", "-o", "link"]).splitlines():
            assert not any(f"link-netns {other}" in link for other in joined), link


def test_bridges_built_again_stay_as_they_are(lab: Lab) -> None:
    def state(host: Host) -> tuple[str, ...]:
        return (
            host.vsctl("get", "Open_vSwitch", ".", "next_cfg"),  # grows with every change that ovs-vsctl makes
            host.vsctl("--columns=name,ofport,mac_in_use", "list", "Interface"),
            host.vsctl("--columns=name,datapath_id,controller,flow_tables,ports", "list", "Bridge"),
            host.vsctl("--columns=_uuid,target", "list", "Controller"),
        )

    for host in lab.hosts.values():
        before = state(host)
        host.build_bridges()
        assert state(host) == before


def test_fixed_ports_have_their_numbers_and_tables_their_names(lab: Lab) -> None:
    for host in lab.hosts.values():
        numbers = host.vsctl("--bare", "--columns=name,ofport", "find", "Interface", "ofport<5").split("\n\n")
        ports = dict(number.split("\n")[:2] for number in numbers)
        assert {"uplink": "1", "t-vxlan": "2", "t-geneve": "3", "t-gre": "4"}.items() <= ports.items()
        assert "table=SOURCE_GUARD" in host.ofctl("dump-flows", "br-nic").replace('"', "")


def test_a_restarted_switch_keeps_its_addresses_and_ports(lab: Lab) -> None:
    host = lab.host("h1")
    shown = ["ip", "-br", "address", "show", "dev"]
    before = [host.run([*shown, bridge]).split()[2] for bridge in ("br-nic", "br-ctl")]
    ports = host.vsctl("--columns=name,ofport,mac_in_use", "find", "Interface", "name!=br-ctl", "name!=br-guest")
    host.restart_vswitchd()
    assert [host.run([*shown, bridge]).split()[2] for bridge in ("br-nic", "br-ctl")] == before
    assert host.vsctl("get", "Interface", "br-nic", "mac_in_use").strip() == '"0a:6e:c0:00:02:01"'
    assert "uplink" in ports
    reach(lab)


def test_a_capture_sees_frames_as_they_were_sent(lab: Lab) -> None:
    guest, host = lab.guest("a"), lab.host("h1")
    plain = bytes.fromhex("0a005e00000102000000000a88b5") + bytes(range(100))
    tagged = plain[:12] + bytes.fromhex("81000064") + plain[12:]
    # Towards the guest: the other way there is a filter.
    with guest.capture("in") as arrived, host.capture("a", "out") as sent, guest.capture("out") as nothing:
        send(host.namespace, "a", plain, tagged)
    # The guest's kernel may ask for a neighbour meanwhile.
    ours = [[frame for frame in each.frames if b"\x88\xb5" in frame[:18]] for each in (arrived, sent, nothing)]
    assert ours == [[plain, tagged], [plain, tagged], []]


def test_a_moved_guest_is_plugged_at_its_new_host_only(make_lab: MakeLab) -> None:
    lab = make_lab(controller=False)
    guest, old, new = lab.guest("a"), lab.host("h1"), lab.host("h2")
    guest.move(new)
    assert not {"a", "g-a", "n-a"} & set(old.vsctl("--bare", "--columns=name", "list", "Interface").split())
    assert {"a", "g-a", "n-a"} <= set(new.vsctl("--bare", "--columns=name", "list", "Interface").split())
    guest.move(old)
    assert {"a", "g-a", "n-a"} <= set(old.vsctl("--bare", "--columns=name", "list", "Interface").split())
    assert "10.0.0.10/24" in guest.run(["ip", "-br", "address"])


def test_status_and_exec_on_the_command_line(lab: Lab) -> None:
    with lockgate("status", "-n", lab.name, "--json") as status:
        out = status.communicate()[0]
    shapes.check("lab status", out)
    found = json.loads(out)
    assert status.returncode == 0
    assert (found["state"], found["controller"]) == ("up", True)
    assert [host["programmed"] for host in found["hosts"]] == [True, True]
    for where, command in (
        ("a", "ping -c1 -W1 10.0.0.11"),
        ("h1", "ovs-vsctl show"),
        ("control", "ping -c1 198.51.100.10"),
    ):
        with lockgate("exec", "-n", lab.name, where, "--", *command.split()) as executed:
            said = executed.communicate()
        assert executed.returncode == 0, said
    with lockgate("exec", "-n", lab.name, "nobody", "--", "true") as executed:
        _, error = executed.communicate()
        assert "has no 'nobody'" in error
        assert error.count("\n") == 1
    assert executed.returncode == 1


def test_a_lab_comes_and_goes_on_the_command_line(make_lab: MakeLab, two_hosts: Path) -> None:
    lab = make_lab(None)
    for words in (["up", "-f", str(two_hosts)], ["down"]):
        with lockgate(*words, "-n", lab.name, "--json") as running:
            out, err = running.communicate()
        assert (running.returncode, err) == (0, "")
        shapes.check(f"lab {words[0]}", out)
        assert json.loads(out)["lab"] == lab.name
    with lockgate("up", "-n", lab.name, "-f", "/nowhere.yaml", "--json") as running:
        out, err = running.communicate()
    assert (running.returncode, err) == (1, "")
    assert json.loads(out)["error"].startswith("/nowhere.yaml: No such file")
    assert traces(lab) == []


def test_a_packet_is_traced_through_the_labs_hosts(lab: Lab) -> None:
    reach(lab)  # so that the way is known
    via = f"{sys.executable} -m mapping.cli lab exec -n {lab.name} {{host}} --"
    argv = [sys.executable, "-m", "mapping.cli", "--db", lab.control.remote, "--json", "trace", "a", "b", "--via", via]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["text"] == "delivered to port b on h2, by its interface b"
    assert {met["host"] for met in found["met"]} == {"h1", "h2"}
