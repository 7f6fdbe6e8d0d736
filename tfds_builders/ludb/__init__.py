"""Lobachevsky University Electrocardiography Database."""
