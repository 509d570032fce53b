"""Clock, disk, store, transport: what logic may know of the world, and the real forms. Decides nothing."""
