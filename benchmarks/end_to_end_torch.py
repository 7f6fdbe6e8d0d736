"""The PyTorch side of `end_to_end.py`: ETP as it is usually written, BERT in every step.

PyTorch, NumPy, tokenizers and safetensors only. BERT is frozen and runs without gradients, reports
are padded to the longest of their batch, and a GPU runs under bfloat16 autocast.
"""

import itertools
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import BertWordPieceTokenizer
from torch import nn
from torch.nn import functional as F  # noqa: N812 (PyTorch's own custom)
from torch.utils.data import DataLoader, Dataset

TEMPERATURE = 0.07


class Bert(nn.Module):
    """The encoder of a published `model.safetensors`; mean of the last layer over the tokens."""

    def __init__(self, folder: Path):
        super().__init__()
        config = json.loads((folder / "config.json").read_text())
        width, eps = config["hidden_size"], config["layer_norm_eps"]
        weights = load_file(folder / "model.safetensors")
        weights = {name.removeprefix("bert."): tensor for name, tensor in weights.items()}
        embeddings = "embeddings.{}_embeddings.weight"
        self.word = nn.Embedding.from_pretrained(weights[embeddings.format("word")])
        self.position = nn.Embedding.from_pretrained(weights[embeddings.format("position")])
        segment = weights[embeddings.format("token_type")][0]
        self.register_buffer("segment", segment)
        self.norm = nn.LayerNorm(width, eps)
        copy(self.norm, weights, "embeddings.LayerNorm")
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width,
                config["num_attention_heads"],
                config["intermediate_size"],
                dropout=0.0,
                activation="gelu",
                layer_norm_eps=eps,
                batch_first=True,
            )
            for _ in range(config["num_hidden_layers"])
        )
        for i, layer in enumerate(self.layers):
            fill(layer, weights, f"encoder.layer.{i}")

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        steps = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.norm(self.word(tokens) + self.position(steps) + self.segment)
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=~mask)
        weight = mask[..., None].to(x.dtype)
        return (x * weight).sum(1) / weight.sum(1)


def copy(module: nn.Module, weights: dict[str, torch.Tensor], name: str) -> None:
    """Fills a linear layer or a layer norm."""
    module.load_state_dict({kind: weights[f"{name}.{kind}"] for kind in ("weight", "bias")})


def fill(layer: nn.TransformerEncoderLayer, weights: dict[str, torch.Tensor], name: str) -> None:
    for kind in ("weight", "bias"):
        parts = [weights[f"{name}.attention.self.{p}.{kind}"] for p in ("query", "key", "value")]
        getattr(layer.self_attn, f"in_proj_{kind}").data.copy_(torch.cat(parts))
    copy(layer.self_attn.out_proj, weights, f"{name}.attention.output.dense")
    copy(layer.norm1, weights, f"{name}.attention.output.LayerNorm")
    copy(layer.linear1, weights, f"{name}.intermediate.dense")
    copy(layer.linear2, weights, f"{name}.output.dense")
    copy(layer.norm2, weights, f"{name}.output.LayerNorm")


class Block(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv1d(inputs, width, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm1d(width)
        self.conv2 = nn.Conv1d(width, width, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm1d(width)
        self.shortcut = nn.Identity()
        if inputs != width:
            conv = nn.Conv1d(inputs, width, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm1d(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


class Encoder(nn.Module):
    """ResNet18-1D."""

    def __init__(self):
        super().__init__()
        stem = [nn.Conv1d(12, 64, 7, 2, 3, bias=False), nn.BatchNorm1d(64), nn.ReLU()]
        blocks, inputs = [], 64
        for width in (64, 128, 256, 512):
            for stride in (1 if width == 64 else 2, 1):
                blocks.append(Block(inputs, width, stride))
                inputs = width
        self.layers = nn.Sequential(*stem, nn.MaxPool1d(3, 2, 1), *blocks)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x).mean(dim=2)


class Pairs(Dataset):
    def __init__(self, folder: Path):
        self.ecg = np.load(folder / "ecg.npy")
        self.texts = json.loads((folder / "texts.json").read_text())

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, str]:
        return torch.from_numpy(self.ecg[i].T / np.float32(1000)), self.texts[i]


def loss(e: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """ETP equations 3-5."""
    logits = F.normalize(e.float()) @ F.normalize(t.float()).T / TEMPERATURE
    target = torch.arange(len(logits), device=logits.device)
    return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))


def main() -> None:
    job = json.loads(sys.argv[1])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    folder = Path(job["tower"])
    bert = Bert(folder).eval().requires_grad_(False).to(device)
    tokenizer = BertWordPieceTokenizer(
        str(folder / "vocab.txt"), lowercase=job["lowercase"], strip_accents=job["lowercase"]
    )
    tokenizer.enable_padding()
    tokenizer.enable_truncation(512)
    heads = {"ecg": nn.Linear(512, 512), "text": nn.Linear(bert.norm.normalized_shape[0], 512)}
    model = nn.ModuleDict({"encoder": Encoder(), **heads}).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, fused=device == "cuda")

    def embed(texts: list[str]) -> tuple[torch.Tensor, int]:
        encoded = tokenizer.encode_batch(texts)
        tokens = torch.tensor([e.ids for e in encoded], device=device)
        mask = torch.tensor([e.attention_mask for e in encoded], device=device, dtype=torch.bool)
        with torch.no_grad():
            return bert(tokens, mask), tokens.shape[1]

    pairs = Pairs(Path(job["exported"]))
    loader = DataLoader(
        pairs, job["batch"], shuffle=True, drop_last=True, pin_memory=device != "cpu"
    )
    batches = (batch for _ in itertools.count() for batch in loader)
    lengths = []

    def step() -> None:
        ecg, texts = next(batches)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            text, length = embed(list(texts))
            e = model["ecg"](model["encoder"](ecg.to(device, non_blocking=True)))
            value = loss(e, model["text"](text))
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()
        value.item()
        lengths.append(length)

    step()
    figures = {
        "first_step": time.time() - job["started"],
        "parameters": sum(p.numel() for p in model.parameters()),
        "embedding": embed(["sinus rhythm. normal ecg."])[0][0].tolist(),
        "torch": torch.__version__,
    }
    print(json.dumps(figures), flush=True)
    for line in sys.stdin:
        times = []
        for _ in range(int(line)):
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start)
        print(json.dumps(times), flush=True)
    print(f"{sum(lengths) / len(lengths):.0f} tokens a report, with padding", file=sys.stderr)


if __name__ == "__main__":
    main()
