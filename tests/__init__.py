"""Tests, by tier: the folder says what they need. A package, because one in site-packages has this name too."""
