"""Volumes as files, block devices and file systems of this machine's kernel."""
