"""What a training step costs on a device that is not here: compiled for it, counted, not run."""
