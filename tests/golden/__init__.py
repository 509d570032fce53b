"""What commit 0fa55f3 wrote and said, kept as files, with what makes such files anew."""
