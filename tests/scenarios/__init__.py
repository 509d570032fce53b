"""Two real sites, readable scripts: what a user does and what must come of it."""
