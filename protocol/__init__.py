"""What crosses a boundary: positions, events, frames, messages, commands, NBD. No file, socket or clock."""
