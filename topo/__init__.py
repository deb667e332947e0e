"""Bridges and links: the three bridges of any host, and the lab that builds whole hosts in network namespaces."""
