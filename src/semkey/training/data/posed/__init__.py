"""Posed photos without depth: tracks of structure from motion say which points are the same."""
