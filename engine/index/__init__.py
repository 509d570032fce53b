"""Where the content of each block is: in memory since the last checkpoint, in LMDB before it.

`memtable` and `versions` are the two halves, `view` reads a volume through both. `checkpoint` moves one into
the other, in an `index_batch`; `indexer` is the child process that does so, `requests` what it is asked,
`checkpoint_timing` when. `indexed_history` is what the index says of timelines and the records on them.
`changes` compares two cuts, `compaction` gives free pages back, `base_index` takes a base's rows in, as
`base_requests` ask for it, `forgetting` takes out those of a branch that is dropped.
"""
