"""Reading the file systems inside a volume, in user space."""
