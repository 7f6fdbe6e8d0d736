"""The PyTorch side of `train_step.py`: the same network, loss and optimiser, on command.

The settings are those a careful PyTorch user would choose: resident data, TF32 and cuDNN's search
where there is a GPU, bfloat16 autocast, fused AdamW, no synchronisation inside a step.
"""

import json
import os
import resource
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from benchmarks import workload


def conv(inputs: int, outputs: int, kernel: int, stride: int, planar: bool) -> nn.Module:
    if planar:
        pad = (0, kernel // 2)
        return nn.Conv2d(inputs, outputs, (1, kernel), (1, stride), pad, bias=False)
    return nn.Conv1d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


class Block(nn.Module):
    """He et al.'s basic block; its parts have the names of the JAX network's."""

    def __init__(self, inputs: int, width: int, stride: int, planar: bool):
        super().__init__()
        norm = nn.BatchNorm2d if planar else nn.BatchNorm1d
        self.Conv_0 = conv(inputs, width, 3, stride, planar)
        self.BatchNorm_0 = norm(width)
        self.Conv_1 = conv(width, width, 3, 1, planar)
        self.BatchNorm_1 = norm(width)
        if inputs != width:
            self.conv_shortcut = conv(inputs, width, 1, stride, planar)
            self.norm_shortcut = norm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.BatchNorm_0(self.Conv_0(x)), inplace=True)
        y = self.BatchNorm_1(self.Conv_1(y))
        if hasattr(self, "conv_shortcut"):
            x = self.norm_shortcut(self.conv_shortcut(x))
        return F.relu(y + x, inplace=True)


class ETP(nn.Module):
    """ResNet18-1D, one linear head per tower, symmetric InfoNCE. `planar`: 2-D, channels last."""

    def __init__(self, planar: bool):
        super().__init__()
        self.planar = planar
        encoder = nn.Module()
        encoder.conv_stem = conv(12, workload.WIDTH, 7, 2, planar)
        encoder.norm_stem = (nn.BatchNorm2d if planar else nn.BatchNorm1d)(workload.WIDTH)
        inputs, self.blocks = workload.WIDTH, []
        for stage, blocks in enumerate(workload.STAGES):
            for i in range(blocks):
                width = workload.WIDTH * 2**stage
                block = Block(inputs, width, 2 if stage and i == 0 else 1, planar)
                setattr(encoder, f"stage{stage + 1}_block{i + 1}", block)
                self.blocks.append(block)
                inputs = width
        self.encoder = encoder
        self.ecg_head, self.text_head = nn.Module(), nn.Module()
        self.ecg_head.out = nn.Linear(inputs, workload.DIM)
        self.text_head.out = nn.Linear(workload.TEXT, workload.DIM)

    def forward(self, ecg: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """ecg int16 [B, T, 12] microvolts, text float32 [B, 384] -> the loss."""
        x = (ecg.to(torch.float32) / 1000).transpose(1, 2)
        if self.planar:
            x = x.unsqueeze(2).contiguous(memory_format=torch.channels_last)
        x = F.relu(self.encoder.norm_stem(self.encoder.conv_stem(x)), inplace=True)
        x = F.max_pool2d(x, (1, 3), (1, 2), (0, 1)) if self.planar else F.max_pool1d(x, 3, 2, 1)
        for block in self.blocks:
            x = block(x)
        features = x.flatten(2).float().mean(2)
        with torch.autocast(x.device.type, enabled=False):
            e = F.normalize(self.ecg_head.out(features), dim=1)
            t = F.normalize(self.text_head.out(text), dim=1)
            logits = e @ t.T / workload.TEMPERATURE
            target = torch.arange(len(e), device=e.device)
            return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))


def load(model: ETP, start: np.lib.npyio.NpzFile) -> None:
    """The JAX network's first weights."""
    tree = {}
    for name, value in start.items():
        if name == "batches":
            continue
        *path, leaf = name.split("/")
        tensor = torch.from_numpy(value)
        if leaf == "kernel":
            tensor = tensor.T if tensor.ndim == 2 else tensor.permute(2, 1, 0)
            if tensor.ndim == 3 and model.planar:
                tensor = tensor.unsqueeze(2)
            leaf = "weight"
        tree[".".join([*path, {"scale": "weight"}.get(leaf, leaf)])] = tensor
    missing = model.load_state_dict(tree, strict=False)
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    wrong = [k for k in missing.missing_keys if not k.endswith(statistics)]
    assert not wrong and not missing.unexpected_keys, (wrong, missing.unexpected_keys)


def main() -> None:
    job = json.loads(sys.argv[1])
    mode, *layout = job["mode"].split("-")
    device = torch.device(job["device"])
    if device.type == "cpu":
        torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high" if device.type == "cuda" else "highest")
    weights = Path(job["weights"]) / "start.npz"
    while not weights.exists():  # the JAX side writes it before it compiles
        time.sleep(0.1)
        if os.getppid() == 1:
            sys.exit("the benchmark has ended")
    start = np.load(weights)
    model = ETP(planar=bool(layout))
    load(model, start)
    model.to(device)
    if layout:
        model.to(memory_format=torch.channels_last)
    decay = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decay}, {"params": rest, "weight_decay": 0.0}],
        lr=workload.LEARNING_RATE,
        weight_decay=workload.WEIGHT_DECAY,
        fused=True,
    )
    ecg, text = (
        torch.from_numpy(a).to(device) for a in workload.records(job["length"], job["records"])
    )
    batches = torch.from_numpy(start["batches"].astype(np.int64)).to(device)
    network = torch.compile(model) if mode == "compile" else model
    half = job["dtype"] == "bfloat16"

    def step(i: int) -> torch.Tensor:
        rows = batches[i % len(batches)]
        with torch.autocast(device.type, torch.bfloat16) if half else nullcontext():
            loss = network(ecg[rows], text[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.detach()

    print(
        json.dumps({"version": f"torch {torch.__version__}", "peak_flops": matmul(device, half)}),
        flush=True,
    )
    done = 0
    for line in sys.stdin:
        losses, begin, cpu = [], time.perf_counter(), time.process_time()
        for _ in range(int(line)):
            losses.append(step(done))
            done += 1
        losses = torch.stack(losses).tolist()  # waits for the device
        took = {
            "steps": int(line),
            "seconds": time.perf_counter() - begin,
            "cpu_seconds": time.process_time() - cpu,
        }
        print(json.dumps(took | {"losses": losses, "peak_memory": peak(device)}), flush=True)


def matmul(device: torch.device, half: bool) -> float:
    """FLOP/s of a large matrix product."""
    n = 2048 if device.type == "cpu" else 8192
    a = torch.ones((n, n), device=device, dtype=torch.bfloat16 if half else torch.float32)
    best = 0.0
    for _ in range(10):
        begin = time.perf_counter()
        (a @ a)[0, 0].item()
        best = max(best, 2 * n**3 / (time.perf_counter() - begin))
    return best


def peak(device: torch.device) -> int:
    """Bytes: the device's peak, or on a CPU the process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
