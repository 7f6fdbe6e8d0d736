"""Recordings of one's own."""
