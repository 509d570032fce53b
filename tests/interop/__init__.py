"""Real NBD clients against a real daemon; one client or behaviour a file."""
