"""A file says what it wants, or every line that is wrong with it."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mapping import document, plan, wanted

EXAMPLES = Path(__file__).parents[2] / "examples"
EXAMPLE = EXAMPLES / "two-hosts.yaml"

GOOD = """\
vpcs:
  blue:
    vni: 5001
    subnets: [10.0.0.0/24]
hosts:
  host-a:
    vtep: 192.0.2.1
ports:
  web:
    vpc: blue
    mac: 02:00:00:00:00:01
    host: host-a
    addresses: [10.0.0.11]
"""


def problems(text: str | bytes) -> list[str]:
    """What is wrong with the file, in an empty database."""
    read = document.read(text if isinstance(text, bytes) else text.encode(), "f.yaml")
    faults = plan.make(read.rows, {}).faults
    return [str(problem) for problem in sorted({*read.problems, *read.locate(faults)})]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_the_examples_are_good(path: Path) -> None:
    assert problems(path.read_bytes()) == []


def test_the_rows_of_a_good_file() -> None:
    read = document.read(GOOD.encode(), "f.yaml")
    assert read.problems == ()
    blue = {"vni": 5001, "subnets": ("10.0.0.0/24",), "router_mac": "0a:00:5e:00:00:01"}
    blue |= {"mtu": None, "dns": (), "routes": ()}
    dpids = {"guest_datapath": "00000067c0000201", "nic_datapath": "0000006ec0000201", "substrate_mtu": None}
    dpids["bmc"] = None
    web = {"vpc": "blue", "mac": "02:00:00:00:00:01", "host": "host-a", "device": "web"}
    assert read.rows == {
        "Vpc": {("blue",): blue},
        "Host": {("host-a",): {"vtep_ip": "192.0.2.1", "encap": "vxlan", **dpids}},
        "SecurityGroup": {},
        "Port": {("web",): {**web, "allowed": (), "limits": (), "boot": (), "groups": ()}},
        "Mapping": {("blue", "10.0.0.11"): {"port": "web"}},
    }


def test_pairs_and_what_is_wrong_with_them() -> None:
    good = "    routes: {10.9.0.0/16: 10.0.0.9}\n    dns: [10.9.9.9]\n"
    text = GOOD.replace("hosts:\n", good + "hosts:\n").replace(
        "    addresses", "    limits: {to_guest_pps: 7}\n    addresses"
    )
    read = document.read(text.encode(), "f.yaml")
    assert read.problems == ()
    assert read.rows["Vpc"]["blue",]["routes"] == ("10.9.0.0/16=10.0.0.9",)
    assert read.rows["Port"]["web",]["limits"] == ("to_guest_pps=7",)
    assert problems(text.replace("pps: 7", "pps: fast")) == [
        "f.yaml:15: limit to_guest_pps 'fast': choose a whole number from 1 to 999999999"
    ]
    assert problems(text.replace("{to_guest_pps: 7}", "7")) == [
        "f.yaml:15: limits of port web: the text '7' stands here: write `name: ...` pairs, indented"
    ]
    assert "next hop 10.1.0.9 is outside" in problems(text.replace(": 10.0.0.9", ": 10.1.0.9"))[0]


def test_the_example_is_good() -> None:
    assert problems(EXAMPLE.read_bytes()) == []


@pytest.mark.parametrize("text", ["vpcs:\n", "ports: {}\n", "vpcs: {}\nhosts:\nports:\n", GOOD + "\n# the end"])
def test_nothing_to_say_is_no_error(text: str) -> None:
    assert problems(text) == []


def test_scalars_stay_text() -> None:
    """YAML 1.1 would make 12:34:56 a number, `no` a boolean, 1e3 a float, and 010 eight."""
    text = GOOD.replace("web:", "no:").replace("host-a", "1e3").replace("02:00:00:00:00:01", "00:12:34:56:01:02")
    read = document.read(text.encode(), "f.yaml")
    assert read.problems == ()
    row = read.rows["Port"]["no",]
    assert (row["mac"], row["host"], row["device"]) == ("00:12:34:56:01:02", "1e3", "no")


def test_a_port_without_a_host_has_its_own_name_as_device() -> None:
    name = "a-very-long-name-of-a-port"
    text = GOOD.replace("web:", f"{name}:").replace("    host: host-a\n", "")
    assert document.read(text.encode(), "f.yaml").rows["Port"][name,]["device"] == name


# (what is replaced in the good file, by what, what is said)
ONE_WRONG: list[tuple[str, str, str]] = [
    ("vni:", "vnl:", "3: key 'vnl' of VPC blue: not known: did you mean 'vni'?"),
    ("vpcs:", "vpc:", "1: key 'vpc' of the file: not known: did you mean 'vpcs'?"),
    ("5001", "16777216", "3: VNI '16777216': choose a whole number from 1 to 16777215"),
    ("5001", "0", "3: VNI '0': choose a whole number from 1 to 16777215"),
    ("5001", "0x10", "3: VNI '0x10': choose a whole number from 1 to 16777215"),
    ("5001", "[1]", "3: vni of VPC blue: a list or mapping stands here: write a single value"),
    ("5001", "", "3: vni of VPC blue: has no value: give one, or remove the line"),
    ("[10.0.0.0/24]", "10.0.0.0/24", "4: subnets of VPC blue: a list belongs here: write it in brackets"),
    ("[10.0.0.0/24]", "[10.0.0.1/24]", "4: subnet '10.0.0.1/24': write it as 10.0.0.0/24"),
    ("[10.0.0.0/24]", "[10.0.0.0/24, 10.0.0.0/25]", "4: subnets 10.0.0.0/24 and 10.0.0.0/25 overlap: remove one"),
    ("[10.0.0.0/24]", "[]", "4: no subnets: name at least one"),
    ("[10.0.0.0/24]", "[[10.0.0.0/24]]", "4: subnets of VPC blue: a list or mapping stands in the list"),
    ("192.0.2.1", "192.0.2", "7: address '192.0.2': write four numbers"),
    ("    vtep: 192.0.2.1\n", "    encap: vxlan\n", "6: host host-a: has no `vtep`: add `vtep: ...`"),
    ("    vtep: 192.0.2.1\n", "    - vtep\n", "7: host host-a: a list stands here: write `name: ...` pairs"),
    ("    vtep: 192.0.2.1\n", "    vtep\n", "7: host host-a: the text 'vtep' stands here: write `name: ...` pairs"),
    ("  web:", "  we b:", "9: name 'we b': use 1 to 63 letters"),
    ("  web:", "  ? [web]\n  :", "9: ports: a list or mapping stands as a key: use a plain name"),
    ("02:00:00:00:00:01", "02:00:00:00:00:0G", "11: MAC '02:00:00:00:00:0G': write six pairs of lower case hex digits"),
    ("02:00:00:00:00:01", "0a:00:5e:00:00:01", "11: MAC 0a:00:5e:00:00:01 of port web is the router's of VPC blue"),
    ("vpc: blue", "vpc: bleu", "10: there is no VPC 'bleu': did you mean 'blue'?"),
    ("host: host-a", "host: host-b", "12: there is no host 'host-b': did you mean 'host-a'?"),
    ("host: host-a", "device: eth9", "12: device 'eth9' is on no host: name the port's host as well"),
    (
        "host: host-a",
        "host: host-a\n    device: n-web",
        "13: device 'n-web': br-, g-, n-, t-, ovs- begin the bridges' own",
    ),
    ("host: host-a", "host: host-a\n    host: host-a", "13: 'host' of port web: given on line 12 already: remove one"),
    ("web:", "a-very-long-name:", "9: port 'a-very-long-name': the name is too long for a device: give `device`"),
    ("[10.0.0.11]", "[10.0.1.11]", "13: address 10.0.1.11 is outside its VPC's subnets (10.0.0.0/24): choose one"),
    ("[10.0.0.11]", "[10.0.0.1]", "13: address 10.0.0.1 is the router of 10.0.0.0/24: choose another"),
    ("[10.0.0.11]", "[10.0.0.255]", "13: address 10.0.0.255 is the network or broadcast address of 10.0.0.0/24"),
    ("[10.0.0.11]", "[fd00::2]", "13: address fd00::2 is outside its VPC's subnets (10.0.0.0/24): choose one inside"),
    ("[10.0.0.11]", "[FD00::2]", "13: address 'FD00::2': write it as fd00::2"),
    (
        "[10.0.0.0/24]",
        "[10.0.0.0/24, 'fd00::/64']\n    mtu: 1279",
        "5: MTU 1279 is too small for IPv6: choose",
    ),
    (
        "[10.0.0.11]",
        "[10.0.0.11, 10.0.0.11]",
        "13: address 10.0.0.11 of VPC blue is mapped already, to port web (line 13)",
    ),
    ("  blue:", "\tblue:", "2: 'blue:': found"),
    ("[10.0.0.11]", "[10.0.0.11", "14: end of file: did not find expected ',' or ']'"),
    ("vni: 5001", "vni: 5001: 1", "3: 'vni: 5001: 1': mapping values are not allowed"),
    ("vni: 5001", "vni: &x 5001\n    mtu: *x", "4: alias '*x': aliases are not read: write the value out"),
    ("vni: 5001", "vni: *x", "3: alias '*x': aliases are not read: write the value out"),
    ("vni: 5001", "vni: " + "[" * 50, "nested too deeply"),
    ("vni: 5001", "vni: \x01", "3: 'vni: \\x01': a control character: remove it"),
    ("hosts:", "---\nhosts:", "5: '---': but found another document"),
]


@pytest.mark.parametrize(("good", "bad", "said"), ONE_WRONG)
def test_one_thing_wrong_is_one_line(good: str, bad: str, said: str) -> None:
    assert good in GOOD
    found = problems(GOOD.replace(good, bad, 1))
    assert len(found) == 1, found
    assert found[0].startswith("f.yaml:")
    assert said in found[0]
    assert "\n" not in found[0]


SECOND_PORT = """\
  db:
    vpc: blue
    mac: 02:00:00:00:00:02
    host: host-a
    addresses: [10.0.0.12]
"""


@pytest.mark.parametrize(
    ("good", "bad", "said"),
    [
        ("00:02", "00:01", "16: MAC 02:00:00:00:00:01 of VPC blue is taken by port web: choose another"),
        ("0.12", "0.11", "18: address 10.0.0.11 of VPC blue is mapped already, to port web (line 13): choose another"),
        ("host-a", "host-a\n    device: web", "18: device web of host host-a is taken by port web: choose another"),
        ("db:", "web:", "14: 'web' of ports: given on line 9 already: remove one"),
    ],
)
def test_two_ports_that_want_the_same(good: str, bad: str, said: str) -> None:
    assert problems(GOOD + SECOND_PORT) == []
    assert [line.startswith(f"f.yaml:{said}") for line in problems(GOOD + SECOND_PORT.replace(good, bad))] == [True]


def test_hosts_and_vpcs_that_want_the_same() -> None:
    text = """\
vpcs:
  blue: {vni: 1, subnets: [10.0.0.0/24]}
  red: {vni: 1, subnets: [10.0.0.0/24]}
hosts:
  a: {vtep: 192.0.2.1, guest_datapath: 0000000000000001, nic_datapath: 0000000000000001}
  b: {vtep: 192.0.2.1}
  c: {vtep: 192.0.2.3, guest_datapath: 0000000000000001}
"""
    assert problems(text) == [
        "f.yaml:3: VNI 1 is taken by VPC blue: choose another",
        "f.yaml:5: datapath id 0000000000000001 is taken by host a: give each bridge its own",
        "f.yaml:6: VTEP 192.0.2.1 is taken by host a: choose another",
        "f.yaml:7: datapath id 0000000000000001 is taken by host a: give each bridge its own",
    ]


def test_everything_wrong_is_said_at_once_in_order_of_line() -> None:
    text = GOOD.replace("5001", "x").replace("192.0.2.1", "y").replace("blue\n", "bleu\n").replace("00:01", "zz")
    found = [line.removeprefix("f.yaml:").split(":")[0] for line in problems(text.replace("host: ", "hots: "))]
    assert found == ["3", "7", "10", "11", "12"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "f.yaml:1: nothing: the file is empty: describe `vpcs`, `hosts`, `groups` or `ports`"),
        (b"# only a comment\n", "f.yaml:1: nothing: the file is empty: describe `vpcs`, `hosts`, `groups` or `ports`"),
        (b"- a\n", "f.yaml:1: the file: a list stands here: write `name: ...` pairs, indented"),
        (b"hello\n", "f.yaml:1: the file: the text 'hello' stands here: write `name: ...` pairs, indented"),
        (b"vpcs:\n  \xff: 1\n", "f.yaml:2: byte 0xff: not UTF-8: save the file as UTF-8"),
    ],
)
def test_no_document(data: bytes, said: str) -> None:
    assert problems(data) == [said]


def test_a_tab_is_named() -> None:
    assert problems("vpcs:\n\tblue:\n")[0].endswith("indent with spaces, not tabs")


def test_bombs_are_refused_before_they_are_built() -> None:
    bomb = "a: &a [x,x]\n" + "".join(
        f"{b}: &{b} [*{a},*{a}]\n" for a, b in zip("abcdefghij", "bcdefghijk", strict=True)
    )
    assert [line.endswith("aliases are not read: write the value out") for line in problems(bomb)] == [True]
    for deep in ("[" * 100_000, "- " * 100_000, "{" * 100_000, "? " * 100_000):
        assert [line.endswith("nested too deeply: see examples/two-hosts.yaml") for line in problems(deep)] == [True]


@given(st.text(alphabet="vpcs:hoblueni \n-[]{},&*!#'\"?|>%@\t0152.") | st.text())
def test_any_text_gives_rows_or_problems(text: str) -> None:
    for line in problems(text):
        assert line.startswith("f.yaml:")
        assert len(line.splitlines()) == 1


@given(st.lists(st.integers(0, len(GOOD) - 1), max_size=4), st.sampled_from(["", ":", "\n", " ", "[", "x", "'", "\t"]))
def test_a_damaged_file_never_raises(places: list[int], by: str) -> None:
    text = GOOD
    for place in places:
        text = text[:place] + by + text[place + 1 :]
    assert all(len(line.splitlines()) == 1 for line in problems(text))


def test_suggestions() -> None:
    assert wanted.suggest("hots", ["host", "mac"]) == "did you mean 'host'?"
    assert wanted.suggest("zzz", ["host", "mac"]) == "choose host, mac"
    assert wanted.suggest("zzz", []) == "correct the name"


def test_without_libyaml_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "_Loader", yaml.SafeLoader)
    assert document.read(GOOD.encode(), "f.yaml").problems == ()
    assert problems("vpcs:\n\tblue:\n")[0].endswith("indent with spaces, not tabs")
    assert problems("a: \x01")[0].endswith("a control character: remove it")
    assert problems("[" * 100_000)[0].endswith("nested too deeply: see examples/two-hosts.yaml")
    assert problems("a: &x 1\nb: *x")[0].endswith("aliases are not read: write the value out")
