"""Holding a group for a peer: peer door and receiver. Never imports site_primary."""
