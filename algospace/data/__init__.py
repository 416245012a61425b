"""Bars: contracts, sessions, readers, quality, splits."""
