"""Being told: what a person must know without having asked.

    conditions   pure: what is wrong, from a few figures, and the limits that an operator sets ([alerts])
    standing     pure: which of that is new, and which is over
    watch        looks once a second and makes an event of each change
    peer_news    what a site tells its peer of its own events, so that both sites have them

An event may pass between two looks; a condition lasts. What has its own event where it happens (damage, a
takeover, hosts cut off) is not made a condition here a second time.
"""
