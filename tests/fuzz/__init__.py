"""Damaged files by the thousand, for everything that reads one: ``python -m fuzz`` in tests/."""
