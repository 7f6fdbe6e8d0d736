"""A run's figures as one web page that needs nothing but itself: `write(Content(...), path)`."""

from ecg_jax.report.content import Content, Embedding, PromptMap, Sample, Waves
from ecg_jax.report.page import LIMIT, render, write

__all__ = ["LIMIT", "Content", "Embedding", "PromptMap", "Sample", "Waves", "render", "write"]
