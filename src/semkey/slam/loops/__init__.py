"""Recognising places and correcting the map when one is seen again."""
