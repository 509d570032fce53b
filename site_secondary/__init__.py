"""Holding a group for a peer: peer door, receiver, restores. Never imports site_primary."""
