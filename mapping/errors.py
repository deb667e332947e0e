"""What cannot be done, said to a person."""

from __future__ import annotations


class MappingError(Exception):
    """What was asked cannot be done. The text is for a person: it names the thing and the mend."""
