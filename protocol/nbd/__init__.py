"""The NBD wire, sans-I/O: handshake, requests, replies. It reads and makes bytes; sockets are the caller's.

Rules after "The NBD protocol", doc/proto.md of https://github.com/NetworkBlockDevice/nbd; docstrings name its
sections. What a host sends is checked here once; what lies behind trusts it.
"""
