"""Measurements. They print figures, each beside its limit or its peer from the same run, and decide nothing."""
