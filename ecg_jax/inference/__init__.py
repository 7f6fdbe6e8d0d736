"""A trained model in use: read back from a folder, and applied to recordings."""
