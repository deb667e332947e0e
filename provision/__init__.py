"""Gives a bare-metal host to a tenant, and takes it back: power, the port's rules, and the order of the two."""
