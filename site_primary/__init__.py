"""Serving a group's hosts: NBD server, write path, shipper, backups. Never imports site_secondary."""
