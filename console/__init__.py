"""What an operator touches: the client library and the command `farshore`. Touches no data files."""
