"""Methods, caches, and how pairs are run."""
