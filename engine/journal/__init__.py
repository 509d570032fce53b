"""The journal's files: where they lie, writing, reading, recovery. Knows no blocks, volumes or sites."""
