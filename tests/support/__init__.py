"""What the suites share: real sites as processes, real clients, block patterns."""
