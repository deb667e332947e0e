"""What is asked of the server when a connection is new."""

from mapping.linked import Linked
from mapping.working_set import WorkingSet
from tests.build import BLUE, HOST_A, WEB


def test_a_server_that_is_asked_for_no_row_need_not_go_through_them() -> None:
    asked = WorkingSet(()).begin()
    assert {table for table, what in asked.items() if what["select"] == {"initial": False}} == asked.keys()


def test_a_new_connection_asks_for_what_was_asked_for_last() -> None:
    working_set, linked = WorkingSet([HOST_A.uuid]), Linked()
    for table, row in (("Host", HOST_A), ("Vpc", BLUE), ("Port", WEB)):
        linked.put(table, row.uuid, row)
    linked.settle()
    working_set.adjust(linked)
    asked = working_set.begin()
    assert asked["Mapping"] == {"where": [["vpc", "==", ["uuid", BLUE.uuid]]], "select": {"initial": True}}
    assert all(what["select"] == {"initial": True} for what in asked.values())
