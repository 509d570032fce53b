"""What of the past must stay, and giving the rest of the journal's space back.

`needed` decides which versions must stay readable, and is pure. `truncation` is how one segment is given up:
what must stay of it moves into the index, and its file goes; `reclaim` says when. `leases` and `timed_leases`
keep cuts for a while; `retention_lock`, with its clock and notes, keeps them whatever anybody asks.
`journal_space` and `pressure` tell how full the journal is and slow writers down.
"""
