"""Volumes out of Farshore and images into it: raw and qcow2 files, read and written over NBD.

A copy is done once what was written has been read back and has the digest of what it was made from.
"""
