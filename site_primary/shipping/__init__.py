"""The sending end of a pair: a group's journal on its way to a peer.

`shipper` is one group's end of one pair, over all its sessions. A `session` is one connection after another,
with its phases in one table (`session_phases`) and the delay before the next dial (`backoff`). It begins with
a `comparison` of both journals. Then one of three parts moves data: `send_window` sends the journal's frames,
`base_sender` a base of changed blocks (`base_shipment` over several sessions, `base_state` and `base_walk`
for what is in it), `fetcher` takes the peer's journal in.

`rate_limit` is how all groups share the rate to one peer. `journal_lease` keeps the frames that the peer
lacks, `host_wait` says when hosts wait for the peer, `yielding` when this site gives way to it.
"""
