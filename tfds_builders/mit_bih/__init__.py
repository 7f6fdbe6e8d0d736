"""MIT-BIH Arrhythmia Database."""
