"""Frames placed against the map: how, and what is believed."""
