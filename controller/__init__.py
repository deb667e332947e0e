"""The Ryu application. Imported at every start of Python (see ryu_compat), so it must stay empty."""
