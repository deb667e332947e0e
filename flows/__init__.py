"""Pure: a snapshot of the mapping to the flows that enforce it. No I/O, no clock, no Ryu."""
