"""Which histories of a group this site holds, and what is visible at a cut of one of them.

A timeline is one run of one writer; a lineage is the line of timelines that leads to a cut; a branch is what
leads elsewhere. `timelines` and `lineage` know their shape, `visibility` says which versions count at a cut,
`cuts` turns what a user wrote into a cut, `volumes` and `promises` tell what the records on a lineage say.
`bases`, `base_*`: a state that came without the journal below it. `branch_drop`: giving a branch up.
`unread`, `accepted`: frames that this program does not understand, and what an operator decided about them.
"""
