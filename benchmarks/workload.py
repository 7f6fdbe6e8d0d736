"""What both sides of `train_step.py` train on, and how much arithmetic a step has. NumPy only."""

from typing import Any

import numpy as np

LEARNING_RATE = 1e-3
WEIGHT_DECAY = 0.05
TEMPERATURE = 0.07
WIDTH, STAGES, DIM, TEXT = 64, (2, 2, 2, 2), 512, 384


def job(options: Any, length: int, batch: int) -> dict:
    """What a side is told. On an accelerator, records for many steps in one dispatch."""
    accelerator = options.device != "cpu"
    return {
        "length": length,
        "batch": batch,
        "device": options.device,
        "dtype": options.dtype,
        "records": max(4 * batch, 16_384) if accelerator else 4 * batch,
    }


def records(T: int, N: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise: int16 [N, T, 12] microvolts, and unit text embeddings float32 [N, 384].

    At most 512 signals are different, as drawing 17,418 takes half a minute.
    """
    rng = np.random.default_rng(0)
    noise = (300 * rng.standard_normal((min(N, 512), T, 12), np.float32)).astype(np.int16)
    ecg = noise[np.arange(N) % len(noise)]
    text = rng.normal(0, 1, (N, TEXT)).astype(np.float32)
    return ecg, text / np.linalg.norm(text, axis=1, keepdims=True)


def flops_per_record(T: int) -> float:
    """Multiplications and additions of ResNet18-1D's convolutions, forward and backward.

    The backward pass has twice the forward's, but for the stem, whose input needs no gradient.
    """
    T = -(-T // 2)
    stem = 2 * 7 * 12 * WIDTH * T
    total, T, inputs = 0.0, -(-T // 2), WIDTH
    for stage, blocks in enumerate(STAGES):
        width = WIDTH * 2**stage
        for i in range(blocks):
            if stage and i == 0:
                T = -(-T // 2)
                total += 2 * inputs * width * T
            total += 2 * 3 * (inputs + width) * width * T
            inputs = width
    return 2 * stem + 3 * total
