"""What the two sites of a pair owe each other beside frames.

`pair_states` is the table of states; `peer_requests` asks about the other site's past and `peer_answers`
answers from its `own_past`; `peer_pace` shares this site's time among its peers.
"""
