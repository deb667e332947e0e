"""Measurements, each beside its limit or its peer from the same run: `python -m bench`, see docs/performance.md.

The command is in `__main__`; each group of figures in the module of its name (`working-set` in `working_set`). What
they share: `site` (database, switch, ryu-manager) and `ovn_site` (its peer), `content` and `layout` (what is in them),
`watch` and `channel` (looking at a switch from outside), `client` and `process`; `results` and `plots` hand on.
"""
