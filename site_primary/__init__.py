"""Serving a group's hosts: NBD server, write path, shipping, backups, restores. Not: site_secondary."""
