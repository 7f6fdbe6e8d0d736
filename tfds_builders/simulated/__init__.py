"""Simulated 12-lead ECGs with machine-style reports: the demo's data and the unit tests' data."""
