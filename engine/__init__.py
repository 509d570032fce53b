"""The truth: journal, index, visibility, timelines, recovery. Knows no NBD, and not which site it is."""
