"""`ryu-manager controller.app`: Ryu's events in, nothing else. What is done about them is in `controller.fleet`.

LOCKGATE_DB names the mapping database's servers, separated by commas, as in ovsdb(7): "ssl:198.51.100.1:6642".
LOCKGATE_TLS names the folder that `lockgate pki issue` made: with a controller's certificate this serves many hosts,
with a host's that one.
LOCKGATE_METRICS, if set, is where Prometheus finds metrics, an address of the control network: "198.51.100.1:9464".
LOCKGATE_LOG=json has each line of the log be a JSON object.
"""

from __future__ import annotations

import gc
import os
import sys
from typing import Any, Final

from ryu.base.app_manager import RyuApp
from ryu.controller import ofp_event
from ryu.controller.handler import CONFIG_DISPATCHER, DEAD_DISPATCHER, MAIN_DISPATCHER, set_ev_cls
from ryu.ofproto import ofproto_v1_5

from controller.fleet import Fleet
from controller.logs import use_json
from controller.metrics import listen_address
from mapping.schema import DEFAULT_REMOTE
from mapping.tls import Identity

_NEW_OBJECTS: Final = 50_000
"""Made before the garbage collector looks for cycles among them. Rows and flows are many, and make none."""

_ANSWERS: Final = [
    ofp_event.EventOFPFlowDescStatsReply,
    ofp_event.EventOFPPortStatsReply,
    ofp_event.EventOFPBundleCtrlMsg,
    ofp_event.EventOFPMeterDescStatsReply,
    ofp_event.EventOFPMeterStatsReply,
    ofp_event.EventOFPBarrierReply,
    ofp_event.EventOFPErrorMsg,
]


class Lockgate(RyuApp):
    """The controller, as Ryu runs it."""

    OFP_VERSIONS: Final = [ofproto_v1_5.OFP_VERSION]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        gc.set_threshold(_NEW_OBJECTS)
        if os.environ.get("LOCKGATE_LOG") == "json":
            use_json()
        self._metrics = _listen_address()
        remotes = os.environ.get("LOCKGATE_DB", DEFAULT_REMOTE).split(",")
        self._fleet = Fleet(remotes, Identity.from_environment())

    def start(self) -> Any:
        """Called by Ryu once."""
        thread = super().start()
        self.threads += self._fleet.start()
        if self._metrics:
            self.threads += self._fleet.metrics.serve(self._metrics)
        return thread

    @set_ev_cls(ofp_event.EventOFPStateChange, [MAIN_DISPATCHER, DEAD_DISPATCHER])
    def _state_changed(self, event: Any) -> None:
        if event.state == MAIN_DISPATCHER:
            self._fleet.connected(event.datapath)
        elif event.datapath.id is not None:
            self._fleet.disconnected(event.datapath)

    @set_ev_cls(ofp_event.EventOFPPortStateChange, MAIN_DISPATCHER)
    def _port_changed(self, event: Any) -> None:
        self._fleet.ports_changed(event.datapath)

    @set_ev_cls(_ANSWERS, [CONFIG_DISPATCHER, MAIN_DISPATCHER])
    def _answered(self, event: Any) -> None:
        self._fleet.answered(event.msg.datapath, event.msg)

    @set_ev_cls(ofp_event.EventOFPPacketIn, MAIN_DISPATCHER)
    def _punted(self, event: Any) -> None:
        self._fleet.punted(event.msg.datapath, event.msg)

    @set_ev_cls(ofp_event.EventOFPFlowMonitorReply, MAIN_DISPATCHER)
    def _flows_changed(self, event: Any) -> None:
        self._fleet.flows_changed(event.msg.datapath, event.msg)


def _listen_address() -> tuple[str, int] | None:
    wanted = os.environ.get("LOCKGATE_METRICS")
    try:
        return listen_address(wanted) if wanted else None
    except ValueError as error:
        sys.exit(str(error))
