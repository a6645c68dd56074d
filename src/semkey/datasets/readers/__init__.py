"""Readers of one layout each."""
