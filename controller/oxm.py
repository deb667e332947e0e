"""The packet fields of Open vSwitch that Ryu has no name for, told to it."""

from __future__ import annotations

from typing import Any, Final

from ryu.lib import type_desc
from ryu.ofproto import ofproto_v1_5 as ofp
from ryu.ofproto import oxm_fields


class _Ericsson(oxm_fields._OxmClass):  # noqa: SLF001 - how each class of fields is told
    """ERICOXM_OF of ovs-fields(7)."""

    _class = 0x1000


FIELDS: Final[list[Any]] = [
    _Ericsson("nd_reserved", 1, type_desc.Int4),
    _Ericsson("nd_options_type", 2, type_desc.Int1),
]


def install() -> None:
    """Let Ryu's encoder write `FIELDS`, besides those that it knows."""
    known = {field.name for field in ofp.oxm_types}
    ofp.oxm_types += [field for field in FIELDS if field.name not in known]
    oxm_fields.generate(ofp.__name__)
