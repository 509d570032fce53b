"""Farshore measured beside QEMU's own mirror; `python -m bench --help`."""
