"""Whether everything that the journal and the index promise is there and unchanged, and mending what is not.

`verify` looks at one slice, `verify_slices` has the indexer process do it, `verify_rounds` goes through a
whole group. `faults` and `damage` are what was found, `repair` and `mending` put it right with what
`own_frames` and the peer have, `drills` keeps what drills showed.
"""
