"""What an audit takes for wrong."""

from explain.audit import Finding, again


def finding(kind: str, installed: str = "", desired: str = "", host: str = "h1") -> Finding:
    assert kind in ("missing", "changed", "stale", "stranger")
    return Finding(host, "br-nic", kind, "PUSH", 1, installed, desired, (), "")  # type: ignore[arg-type]


def test_only_what_is_wrong_at_both_looks_is_wrong() -> None:
    """A change that is on its way is missing at one look and there at the next, and another then is."""
    stays = finding("missing", desired="a")
    before = [stays, finding("missing", desired="b"), finding("stale", installed="c")]
    now = [finding("missing", desired="d"), stays, finding("missing", desired="a", host="h2"), finding("stale", "e")]
    assert again(before, now) == [stays]
