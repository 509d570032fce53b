"""Reading the file systems inside a volume, in user space.

`reader` is a process of its own, confined before it reads the first byte. It knows an export, nothing else.
"""
