"""Backups: positions in the journal, with the table, marks and policies that belong to them.

`copies` is the table, derived from the journal's events and so the same at both sites; `copy_marks` holds
what one site found out about its own, `copy_space` what they take. `policies`, `schedules`, `keep_rules` and
`pruning` say when one is taken and which ones go.
"""
