"""The controller's log as JSON, one object a line, for programs: LOCKGATE_LOG=json. Otherwise it is Ryu's text."""

from __future__ import annotations

import json
import logging
import time
from typing import Final

ABOUT: Final = ("host", "bridge", "vpc", "port", "table", "row", "reason", "datapath")
"""What a line may be about, besides its text: names as in the mapping database."""


class JsonFormatter(logging.Formatter):
    """Time (UTC), level, logger, message, and of `ABOUT` what the record has."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {"time": f"{when}.{int(record.msecs):03d}Z", "level": record.levelname.lower(), "logger": record.name}
        line["message"] = record.getMessage()
        line |= {name: str(getattr(record, name)) for name in ABOUT if hasattr(record, name)}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def use_json() -> None:
    """Have everything that is logged from now on written so, also what Ryu logs."""
    for handler in logging.getLogger().handlers:
        handler.setFormatter(JsonFormatter())
