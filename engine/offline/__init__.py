"""A dead site's groups, read with no daemon and without changing a byte of them.

`groups` opens one; `offline_disk` is its disk, `offline_index` its index and `offline_state` what the site
remembered of it; `offline_salvage` finds what the journal holds where the index is lost.
"""
