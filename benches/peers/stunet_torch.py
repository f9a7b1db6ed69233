#!/usr/bin/env python3
"""STU-Net stated in plain PyTorch: the peer that stunet's figures stand beside.

The module names give the state dict of the published checkpoints, so that the seeded weights of the
golden data (and any real checkpoint) load. Needs torch and numpy, nothing else.

    stunet_torch.py parity  --oracle DIR [--device cuda]        logits against the golden data
    stunet_torch.py time    --sizes S,B --task forward,train    medians, one JSON line per row
    stunet_torch.py windows --size S --count 27 --device cpu    network time of a sliding window
    stunet_torch.py save FILE.model --size S --seed 33          seeded weights as a checkpoint
    stunet_torch.py follow DIR                                  the training that stunet recorded in DIR

Rows are appended to --out as they are measured: a run that is cut off keeps what it has.
"""
import argparse
import json
import os
import statistics
import sys
import time
import zipfile

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

SIZES = {
    "S": (1, [16, 32, 64, 128, 256, 256]),
    "B": (1, [32, 64, 128, 256, 512, 512]),
    "L": (2, [64, 128, 256, 512, 1024, 1024]),
    "H": (3, [96, 192, 384, 768, 1536, 1536]),
}
PUBLISHED_STRIDES = [[2, 2, 2]] * 4 + [[1, 1, 2]]


# ------------------------------------------------------------------------------------- the network
class ResidualBlock(nn.Module):
    def __init__(self, cin, cout, stride, project):
        super().__init__()
        self.conv1 = nn.Conv3d(cin, cout, 3, stride=stride, padding=1)
        self.norm1 = nn.InstanceNorm3d(cout, affine=True)
        self.conv2 = nn.Conv3d(cout, cout, 3, padding=1)
        self.norm2 = nn.InstanceNorm3d(cout, affine=True)
        self.conv3 = nn.Conv3d(cin, cout, 1, stride=stride) if project else None

    def forward(self, x):
        y = F.leaky_relu(self.norm1(self.conv1(x)), 0.01, inplace=True)
        y = self.norm2(self.conv2(y))
        y = y + (x if self.conv3 is None else self.conv3(x))
        return F.leaky_relu(y, 0.01, inplace=True)


def stage(cin, cout, depth, stride=1):
    first = ResidualBlock(cin, cout, stride, project=True)
    rest = (ResidualBlock(cout, cout, 1, project=False) for _ in range(depth - 1))
    return nn.Sequential(first, *rest)


class Upsample(nn.Module):
    def __init__(self, cin, cout, factor):
        super().__init__()
        self.conv = nn.Conv3d(cin, cout, 1)
        self.factor = tuple(float(f) for f in factor)

    def forward(self, x):
        # Interpolation first, as in the reference; the values do not depend on the order.
        return self.conv(F.interpolate(x, scale_factor=self.factor, mode="nearest"))


class StuNet(nn.Module):
    def __init__(self, in_channels, num_classes, width, depth, strides):
        super().__init__()
        w, d = width, depth
        self.conv_blocks_context = nn.ModuleList(
            [stage(in_channels, w[0], d[0])]
            + [stage(w[i], w[i + 1], d[i + 1], s) for i, s in enumerate(strides)])
        coarse_to_fine = list(range(len(strides) - 1, -1, -1))
        self.upsample_layers = nn.ModuleList(
            Upsample(w[i + 1], w[i], strides[i]) for i in coarse_to_fine)
        self.conv_blocks_localization = nn.ModuleList(
            stage(2 * w[i], w[i], d[i]) for i in coarse_to_fine)
        self.seg_outputs = nn.ModuleList(nn.Conv3d(w[i], num_classes, 1) for i in coarse_to_fine)

    def features(self, x):
        skips = []
        for blocks in self.conv_blocks_context:
            x = blocks(x)
            skips.append(x)
        skips.pop()
        for up, blocks in zip(self.upsample_layers, self.conv_blocks_localization):
            x = blocks(torch.cat((up(x), skips.pop()), dim=1))
            yield x

    def forward(self, x):
        """Logits at full resolution."""
        *_, finest = self.features(x)
        return self.seg_outputs[-1](finest)

    def forward_deep(self, x):
        """Logits at every resolution, finest first."""
        return [head(f) for head, f in zip(self.seg_outputs, self.features(x))][::-1]


def network(size, in_channels=1, num_classes=105):
    depth, width = SIZES[size]
    return StuNet(in_channels, num_classes, width, [depth] * 6, PUBLISHED_STRIDES)


# ----------------------------------------------------------------------------------- seeded values
def bits(seed, tensor_id, count):
    mask = (1 << 64) - 1
    base = (seed * 0x9E3779B97F4A7C15 + tensor_id * 0xBF58476D1CE4E5B9) & mask
    with np.errstate(over="ignore"):
        z = np.uint64(base) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def uniform(seed, tensor_id, shape):
    """Uniform in [-1, 1), exact in f32."""
    u = (bits(seed, tensor_id, int(np.prod(shape))) >> np.uint64(40)).astype(np.float32)
    return (np.float32(2) * (u * np.float32(2.0**-24)) - np.float32(1)).reshape(shape)


def seed_parameters(model, seed, head_gain=1.0):
    """Gives every parameter the value that the golden data were recorded with."""
    state = model.state_dict()
    for tensor_id, (name, tensor) in enumerate(state.items()):
        v = uniform(seed, tensor_id, tuple(tensor.shape))
        head, weight = name.startswith("seg_outputs"), name.endswith("weight")
        if "norm" in name:
            v = np.float32(1) + np.float32(0.5) * v if weight else np.float32(0.3) * v
        elif weight:
            bound = np.float32(np.sqrt(6.0 / ((1 + 1e-4) * int(np.prod(tensor.shape[1:])))))
            v = (np.float32(head_gain) * bound if head else bound) * v
        else:
            v = np.float32(0.5 if head else 0.1) * v
        tensor.copy_(torch.from_numpy(v))
    return model


# --------------------------------------------------------------------------------- loss and update
def soft_dice_loss(logits, target):
    """Per sample, background left out (nnU-Net v1, batch_dice off)."""
    p = torch.softmax(logits, 1)
    one_hot = torch.zeros_like(p).scatter_(1, target, 1)
    axes = tuple(range(2, p.ndim))
    overlap, total = (p * one_hot).sum(axes), p.sum(axes) + one_hot.sum(axes)
    dice = (2 * overlap + 1e-5) / (total + 1e-5 + 1e-8)
    return -dice[:, 1:].mean()


def deep_supervision_loss(outputs, targets):
    """Dice and cross-entropy; weights halve with resolution, the coarsest head has none."""
    weights = np.array([0.5**i for i in range(len(outputs))])
    weights[-1] = 0
    weights /= weights.sum()
    loss = 0.0
    for weight, logits, target in zip(weights, outputs, targets):
        if weight > 0:
            logits = logits.float()
            ce = F.cross_entropy(logits, target[:, 0])
            loss = loss + float(weight) * (ce + soft_dice_loss(logits, target))
    return loss


def make_targets(seed, batch, patch, num_classes, device):
    """Random labels in 8-voxel cubes at every output's resolution."""
    targets, size = [], list(patch)
    for scale in range(5):
        if scale:
            size = [n // s for n, s in zip(size, PUBLISHED_STRIDES[scale - 1])]
        cubes = [-(-n // 8) for n in size]
        shape = (batch, 1, *cubes)
        t = (bits(seed, scale, int(np.prod(shape))) >> np.uint64(33)) % np.uint64(num_classes)
        t = t.astype(np.int64).reshape(shape)
        for axis in (2, 3, 4):
            t = t.repeat(8, axis=axis)
        t = np.ascontiguousarray(t[:, :, : size[0], : size[1], : size[2]])
        targets.append(torch.from_numpy(t).to(device))
    return targets


class TrainingStep:
    """Five heads, loss, backward, clip at norm 12, SGD with Nesterov momentum 0.99, decay 3e-5."""

    def __init__(self, model, forward_deep, x, targets, amp):
        self.model, self.forward_deep, self.x, self.targets, self.amp = model, forward_deep, x, targets, amp
        self.optimizer = torch.optim.SGD(
            model.parameters(), lr=0.01, momentum=0.99, nesterov=True, weight_decay=3e-5)

    def __call__(self):
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.x.device.type, torch.bfloat16, enabled=self.amp):
            outputs = self.forward_deep(self.x)
        loss = deep_supervision_loss(outputs, self.targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 12)
        self.optimizer.step()
        return loss


# ------------------------------------------------------------------------------------------ timing
VARIANTS = {  # name: (bf16 autocast, channels last, compiled)
    "f32": (False, False, False),
    "f32 channels_last_3d": (False, True, False),
    "f32 channels_last_3d compile": (False, True, True),
    "bf16": (True, False, False),
    "bf16 channels_last_3d": (True, True, False),
    "bf16 channels_last_3d compile": (True, True, True),
}


def synchronize(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(step, device, repeats, budget_secs):
    """Warm-up call, then up to `repeats` calls or until the budget is spent."""
    start = time.perf_counter()
    step()
    synchronize(device)
    first = time.perf_counter() - start
    if first < budget_secs:
        step()
        synchronize(device)
    start = time.perf_counter()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    samples = []
    while len(samples) < repeats:
        t = time.perf_counter()
        step()
        synchronize(device)
        samples.append(time.perf_counter() - t)
        if time.perf_counter() - start > budget_secs:
            break
    row = {"first_secs": first, "median_secs": statistics.median(samples), "best_secs": min(samples),
           "repeats": len(samples)}
    if device.type == "cuda":
        row["peak_bytes"] = torch.cuda.max_memory_allocated(device)
    return row


def build_step(args, size, task, variant, device):
    amp, channels_last, compiled = VARIANTS[variant]
    torch.manual_seed(1)
    with torch.device(device):  # 1.5 G parameters are drawn faster there
        model = network(size, num_classes=args.classes)
    batch = args.batch if task == "train" else 1
    x = torch.from_numpy(uniform(2, 0, (batch, 1, *args.patch))).to(device)
    if channels_last:
        model = model.to(memory_format=torch.channels_last_3d)
        x = x.to(memory_format=torch.channels_last_3d)
    wrap = torch.compile if compiled else (lambda f: f)
    if task == "train":
        targets = make_targets(3, batch, args.patch, args.classes, device)
        return TrainingStep(model, wrap(model.forward_deep), x, targets, amp)
    forward = wrap(model.forward)

    @torch.inference_mode()
    def step():
        with torch.autocast(device.type, torch.bfloat16, enabled=amp):
            return forward(x)

    return step


def environment(device):
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {"program": "torch", "device": name, "version": torch.__version__,
            "cuda": torch.version.cuda if device.type == "cuda" else None,
            "cudnn": torch.backends.cudnn.version() if device.type == "cuda" else None,
            "tf32_convolutions": bool(torch.backends.cudnn.allow_tf32) if device.type == "cuda" else None,
            "cudnn_benchmark": bool(torch.backends.cudnn.benchmark),
            "threads": torch.get_num_threads()}


def write(args, row):
    line = json.dumps(row)
    print(line, flush=True)
    if args.out:
        with open(args.out, "a") as f:
            f.write(line + "\n")


def command_time(args):
    device = torch.device(args.device)
    # nnU-Net trains and predicts with this on.
    torch.backends.cudnn.benchmark = True
    env = environment(device)
    for size in args.sizes:
        for task in args.task:
            for variant in args.variants:
                row = {**env, "size": size, "task": task, "variant": variant, "patch": args.patch,
                       "batch": args.batch if task == "train" else 1, "classes": args.classes}
                try:
                    step = build_step(args, size, task, variant, device)
                    row |= measure(step, device, args.repeats, args.budget)
                except Exception as error:  # one row must not end the run
                    row["error"] = (str(error).strip() or repr(error)).splitlines()[0][:300]
                step = None
                torch._dynamo.reset()
                if device.type == "cuda":
                    torch.cuda.empty_cache()
                write(args, row)


def command_windows(args):
    """Forward passes of a sliding window: same network, same number and size of windows."""
    device = torch.device(args.device)
    model = seed_parameters(network(args.size, num_classes=args.classes), 1).to(device).eval()
    x = torch.from_numpy(uniform(2, 0, (1, 1, *args.patch))).to(device)
    with torch.inference_mode():
        start, cpu = time.perf_counter(), time.process_time()
        for _ in range(args.count):
            model(x)
        synchronize(device)
    write(args, {**environment(device), "task": "windows", "size": args.size, "patch": args.patch,
                 "classes": args.classes, "count": args.count,
                 "wall_secs": time.perf_counter() - start, "cpu_secs": time.process_time() - cpu})


def command_save(args):
    model = seed_parameters(network(args.size, num_classes=args.classes), args.seed, args.head_gain)
    torch.save({"epoch": 1, "state_dict": model.state_dict()}, args.file)


# ------------------------------------------------------------------------------------------ follow
def voxel_dice(network, images, labels, num_classes):
    """Dice of the foreground labels that occur, of all voxels of all crops together."""
    with torch.inference_mode():
        found = torch.cat([network(image[None]).argmax(1) for image in torch.from_numpy(images)])
    labels = torch.from_numpy(labels.astype(np.int64))
    scores = {}
    for label in range(1, num_classes):
        reference, prediction = labels == label, found == label
        if reference.any():
            both = (reference & prediction).sum().item()
            scores[label] = 2 * both / (reference.sum().item() + prediction.sum().item())
    return scores


def command_follow(args):
    """Same initial weights, same batches, same rates as the run of `examples/training_curve`."""
    with open(os.path.join(args.folder, "run.json")) as f:
        run = json.load(f)
    c = run["network"]
    model = StuNet(c["in_channels"], c["num_classes"], c["width"], c["depth"], c["strides"])
    model.load_state_dict(torch.load(os.path.join(args.folder, "initial.model"), weights_only=False)["state_dict"])
    crops = load_npz(os.path.join(args.folder, "crops.npz"))
    optimizer = torch.optim.SGD(model.parameters(), lr=run["lr"][0], momentum=run["momentum"], nesterov=True,
                                weight_decay=3e-5)
    out = os.path.join(args.folder, "torch.jsonl")
    open(out, "w").close()
    for step, lr in enumerate(run["lr"]):
        batch = load_npz(os.path.join(args.folder, f"batch_{step:05}.npz"))
        targets = [torch.from_numpy(batch[f"target{i}"].astype(np.int64))[:, None]
                   for i in range(sum(n.startswith("target") for n in batch))]
        optimizer.param_groups[0]["lr"] = lr
        start, cpu = time.perf_counter(), time.process_time()
        optimizer.zero_grad(set_to_none=True)
        loss = deep_supervision_loss(model.forward_deep(torch.from_numpy(batch["image"])), targets)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 12)
        optimizer.step()
        row = {"step": step, "loss": loss.item(), "grad_norm": norm.item(),
               "wall_secs": time.perf_counter() - start, "cpu_secs": time.process_time() - cpu}
        if step in run["evaluate"]:
            dice = voxel_dice(model, crops["images"], crops["labels"], c["num_classes"])
            row["dice"] = float(np.mean(list(dice.values())))
            row["dice_large"] = float(np.mean([dice[label] for label in run["large"]]))
        with open(out, "a") as f:
            f.write(json.dumps(row) + "\n")


# ------------------------------------------------------------------------------------------ parity
def load_npz(path):
    with zipfile.ZipFile(path) as archive:
        names = [n[:-4] for n in archive.namelist()]
    arrays = np.load(path)
    return {name: arrays[name] for name in names}


def command_parity(args):
    device = torch.device(args.device)
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    folder, worst = os.path.join(args.oracle, "A_model"), 0.0
    with open(os.path.join(folder, "cases.json")) as f:
        cases = json.load(f)
    for name, case in cases.items():
        strides = (case["pool_op_kernel_sizes"] + [[1, 1, 1]] * 5)[:5]
        model = StuNet(case["input_channels"], case["num_classes"], case["dims"], case["depth"], strides)
        model = seed_parameters(model, case["seed_weights"], case.get("seg_gain", 1.0)).to(device)
        arrays = load_npz(os.path.join(folder, name + ".npz"))
        with torch.inference_mode():
            outputs = model.forward_deep(torch.from_numpy(arrays["input"]).to(device))
        for scale, out in enumerate(outputs):
            found = out.float().cpu().numpy()
            if f"out{scale}" in arrays:
                expected = arrays[f"out{scale}"]
            else:
                expected = arrays[f"out{scale}_sampled"]
                found = found.ravel()[:: -(-found.size // 131072)]
                found = found[: expected.size]
            error = float(np.abs(found.reshape(expected.shape) - expected).max())
            bound = max(5e-4, 3 * case["f64_maxdiff"][scale])
            worst = max(worst, error / bound)
            print(f"{name} out{scale}: peak {error:.2e} (bound {bound:.1e})")
    print(f"worst error is {worst:.2f} of its bound")
    return 0 if worst <= 1 else 1


def main():
    words = lambda text: text.split(",")
    ints = lambda text: [int(v) for v in text.split(",")]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    shared.add_argument("--patch", type=ints, default=[128, 128, 128])
    shared.add_argument("--classes", type=int, default=105)
    shared.add_argument("--threads", type=int)
    shared.add_argument("--out", help="file that receives one JSON line per row")
    timing = commands.add_parser("time", parents=[shared])
    timing.add_argument("--sizes", type=words, default=["S"])
    timing.add_argument("--task", type=words, default=["forward"])
    timing.add_argument("--variants", type=words, default=list(VARIANTS))
    timing.add_argument("--batch", type=int, default=2, help="of a training step")
    timing.add_argument("--repeats", type=int, default=10)
    timing.add_argument("--budget", type=float, default=30, help="seconds for the repeats of a row")
    windows = commands.add_parser("windows", parents=[shared])
    windows.add_argument("--size", default="S")
    windows.add_argument("--count", type=int, default=27)
    save = commands.add_parser("save", parents=[shared])
    save.add_argument("file")
    save.add_argument("--size", default="S")
    save.add_argument("--seed", type=int, default=33)
    save.add_argument("--head-gain", type=float, default=4.0)
    follow = commands.add_parser("follow", parents=[shared])
    follow.add_argument("folder")
    parity = commands.add_parser("parity", parents=[shared])
    parity.add_argument("--oracle", required=True)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    commands = {"time": command_time, "windows": command_windows, "save": command_save,
                "follow": command_follow, "parity": command_parity}
    return commands[args.command](args)


if __name__ == "__main__":
    sys.exit(main())
