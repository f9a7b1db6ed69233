"""STU-Net in PyTorch, written from the paper and the names in its checkpoints.

Kept plain: it states what the Rust network is held against. Works with torch 1.10 and later.
"""
import numpy as np
import torch
from torch import nn
from torch.nn import functional

import seeded


class Block(nn.Module):
    """Two convolutions with instance norm around a shortcut; the shortcut has no norm."""

    def __init__(self, inputs, outputs, stride, projected):
        super().__init__()
        self.conv1 = nn.Conv3d(inputs, outputs, 3, stride, 1)
        self.norm1 = nn.InstanceNorm3d(outputs, affine=True)
        self.conv2 = nn.Conv3d(outputs, outputs, 3, 1, 1)
        self.norm2 = nn.InstanceNorm3d(outputs, affine=True)
        self.conv3 = nn.Conv3d(inputs, outputs, 1, stride) if projected else None

    def forward(self, x):
        y = functional.leaky_relu(self.norm1(self.conv1(x)), 0.01)
        y = self.norm2(self.conv2(y))
        return functional.leaky_relu(y + (x if self.conv3 is None else self.conv3(x)), 0.01)


def stage(inputs, outputs, depth, stride):
    rest = [Block(outputs, outputs, 1, False) for _ in range(depth - 1)]
    return nn.Sequential(Block(inputs, outputs, stride, True), *rest)


class Upsample(nn.Module):
    def __init__(self, inputs, outputs, factor):
        super().__init__()
        self.conv = nn.Conv3d(inputs, outputs, 1)
        self.factor = factor

    def forward(self, x):
        return self.conv(functional.interpolate(x, scale_factor=self.factor, mode="nearest"))


class StuNet(nn.Module):
    """Encoder and decoder of six stages; a head at each of the five scales of the decoder."""

    def __init__(self, channels, classes, dims, depth, pools):
        super().__init__()
        strides = [(1, 1, 1)] + [tuple(float(n) for n in pool) for pool in pools]
        whole = [tuple(int(n) for n in stride) for stride in strides]
        inputs = [channels] + list(dims[:-1])
        self.conv_blocks_context = nn.ModuleList(
            stage(i, o, d, s) for i, o, d, s in zip(inputs, dims, depth, whole))
        below = list(range(5, 0, -1))
        self.upsample_layers = nn.ModuleList(Upsample(dims[i], dims[i - 1], strides[i]) for i in below)
        self.conv_blocks_localization = nn.ModuleList(
            stage(2 * dims[i - 1], dims[i - 1], depth[i - 1], 1) for i in below)
        self.seg_outputs = nn.ModuleList(nn.Conv3d(dims[i - 1], classes, 1) for i in below)

    def deep(self, x):
        """Logits at every scale, finest first."""
        skips = []
        for encode in self.conv_blocks_context:
            x = encode(x)
            skips.append(x)
        skips.pop()
        outputs = []
        layers = zip(self.upsample_layers, self.conv_blocks_localization, self.seg_outputs)
        for upsample, decode, head in layers:
            x = decode(torch.cat((upsample(x), skips.pop()), dim=1))
            outputs.append(head(x))
        return outputs[::-1]

    def forward(self, x):
        return self.deep(x)[0]


def shapes(network):
    return [(key, tuple(value.shape)) for key, value in network.state_dict().items()]


def seed(network, number, head_gain=1.0):
    """Gives the network its seeded weights; returns their hash."""
    made = seeded.weights(shapes(network), number, head_gain)
    network.load_state_dict({key: torch.from_numpy(np.array(value)) for key, value in made.items()})
    return seeded.digest(made)
