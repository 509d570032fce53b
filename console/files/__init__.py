"""Files out of a volume's file system, at any cut."""
