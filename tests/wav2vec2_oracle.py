"""wav2vec 2.0 once more, in float64 NumPy, from the published tensors by their names. Each entry of
`TRAPS` does one thing as a reader may take it to be done, and wrongly."""

import math

import numpy as np

TRAPS = {
    "one group": "GroupNorm of all channels together",
    "pre-norm": "normalised before attention and MLP",
    "epsilon": "1e-2 in place of 1e-5",
    "tanh": "GELU by its approximation",
    "weight norm by channel": "over taps and inputs of each output, as weight norms mostly are",
    "first dropped": "the first step of the positional convolution, not the last",
    "norm after": "the encoder's LayerNorm after the last layer",
    "heads interleaved": "a head's dimensions are not contiguous",
}


def encode(tensors, x, layers, heads, trap=None):
    """x float64 [T, 12] -> tokens [P, D]."""
    t = {name: np.asarray(a, np.float64) for name, a in tensors.items()}
    for name in ("weight_g", "weight_v"):
        own = {"weight_g": "0", "weight_v": "1"}[name]
        new = f"conv_pos.pos_conv.0.parametrizations.weight.original{own}"
        t.setdefault(f"conv_pos.pos_conv.0.{name}", t.get(new))
    epsilon = 1e-2 if trap == "epsilon" else 1e-5
    act = _tanh if trap == "tanh" else _gelu

    def norm(y, name):
        y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + epsilon)
        return y * t[f"{name}.weight"] + t[f"{name}.bias"]

    def linear(y, name):
        return y @ t[f"{name}.weight"].T + t[f"{name}.bias"]

    y = np.asarray(x, np.float64).T  # [C, T]
    for i in range(4):
        w = t[f"feature_extractor.conv_layers.{i}.0.weight"]
        steps = y.shape[1] // 2
        y = np.stack([np.einsum("oik,ik->o", w, y[:, 2 * s : 2 * s + 2]) for s in range(steps)], 1)
        if i == 0:
            axes = None if trap == "one group" else 1
            mean, variance = y.mean(axes, keepdims=True), y.var(axes, keepdims=True)
            name = "feature_extractor.conv_layers.0.2"
            y = (y - mean) / np.sqrt(variance + epsilon)
            y = y * t[f"{name}.weight"][:, None] + t[f"{name}.bias"][:, None]
        y = act(y)
    y = linear(norm(y.T, "layer_norm"), "post_extract_proj")
    y = y + act(_positions(y, t, trap))
    if trap not in ("norm after", "pre-norm"):
        y = norm(y, "encoder.layer_norm")
    for i in range(layers):
        at = f"encoder.layers.{i}"
        if trap == "pre-norm":
            y = y + _attend(norm(y, f"{at}.self_attn_layer_norm"), at, linear, heads, trap)
            z = norm(y, f"{at}.final_layer_norm")
            y = y + linear(act(linear(z, f"{at}.fc1")), f"{at}.fc2")
            continue
        y = norm(y + _attend(y, at, linear, heads, trap), f"{at}.self_attn_layer_norm")
        y = norm(y + linear(act(linear(y, f"{at}.fc1")), f"{at}.fc2"), f"{at}.final_layer_norm")
    return norm(y, "encoder.layer_norm") if trap in ("norm after", "pre-norm") else y


def _positions(y, t, trap):
    """Tap by tap: padded by 64 on both sides, 16 groups."""
    g, v = (t[f"conv_pos.pos_conv.0.{name}"] for name in ("weight_g", "weight_v"))
    axes = (1, 2) if trap == "weight norm by channel" else (0, 1)
    length = np.sqrt((v**2).sum(axes, keepdims=True))
    w = v * (g / length if axes == (0, 1) else g.mean() / length)
    (P, D), taps, width = y.shape, w.shape[2], w.shape[1]
    padded = np.pad(y, ((taps // 2, taps // 2), (0, 0)))
    out = np.zeros((P + 1, D))
    for s in range(P + 1):
        for group in range(D // width):
            those = slice(group * width, (group + 1) * width)
            window = padded[s : s + taps, those]  # [taps, in]
            out[s, those] = np.einsum("oik,ki->o", w[those], window)
    out += t["conv_pos.pos_conv.0.bias"]
    return out[1:] if trap == "first dropped" else out[:-1]


def _attend(y, at, linear, heads, trap):
    P, D = y.shape
    q, k, v = (linear(y, f"{at}.self_attn.{name}_proj") for name in "qkv")
    out = np.zeros((P, D))
    for h in range(heads):
        size = D // heads
        those = (
            slice(h, D, heads) if trap == "heads interleaved" else slice(h * size, (h + 1) * size)
        )
        logits = q[:, those] @ k[:, those].T / math.sqrt(size)
        weight = np.exp(logits - logits.max(1, keepdims=True))
        out[:, those] = weight / weight.sum(1, keepdims=True) @ v[:, those]
    return linear(out, f"{at}.self_attn.out_proj")


def _gelu(y):
    return y * (1 + np.vectorize(math.erf)(y / math.sqrt(2))) / 2


def _tanh(y):
    return y * (1 + np.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y**3))) / 2
