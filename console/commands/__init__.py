"""The verbs of the command `farshore`, a module a noun; `console.cli` puts them together."""
