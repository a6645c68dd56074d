"""``semkey export``: what semkey made, for other programs."""
