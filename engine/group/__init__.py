"""One group at this site: the whole that the other rooms are parts of.

`group` puts the parts together and adds to the journal in its two ways; `recovery` opens one from disk;
`head_moves` begins and follows timelines; `serving` says whether hosts may be served; `frame_checks` and
`frame_times` what may be appended. `compartment` and `whole` stop a group, and nothing else, when something
fails that nobody expected. `clones` are further writable histories, each an `open_clone`. `site_state` is
what a site must not forget of its groups; `stored_rows` checks that once, at the start.
"""
