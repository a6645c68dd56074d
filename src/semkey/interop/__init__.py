"""What semkey computes in the formats of other programs, and what those wrote as semkey's own."""
