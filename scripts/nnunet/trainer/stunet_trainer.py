"""STU-Net as a trainer of nnU-Net 2.8, written from the names of the tensors that `stunet export` writes.

nnU-Net finds it through the variable nnUNet_extTrainer, which names this folder. STU_EPOCHS, STU_ITERS
and STU_VAL_ITERS shorten the training, STU_VALIDATE=0 leaves out the final validation.
"""
import os

import numpy as np
import torch
import torch.nn.functional as F
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn


class Block(nn.Module):
    """Two convolutions with a residual around them."""

    def __init__(self, inputs, outputs, stride=1, project=True):
        super().__init__()
        self.conv1 = nn.Conv3d(inputs, outputs, 3, stride, 1)
        self.norm1 = nn.InstanceNorm3d(outputs, affine=True)
        self.conv2 = nn.Conv3d(outputs, outputs, 3, 1, 1)
        self.norm2 = nn.InstanceNorm3d(outputs, affine=True)
        self.conv3 = nn.Conv3d(inputs, outputs, 1, stride) if project else None

    def forward(self, x):
        y = F.leaky_relu(self.norm1(self.conv1(x)), 0.01)
        y = self.norm2(self.conv2(y))
        return F.leaky_relu(y + (x if self.conv3 is None else self.conv3(x)), 0.01)


def stage(inputs, outputs, depth, stride=1):
    return nn.Sequential(Block(inputs, outputs, stride),
                         *[Block(outputs, outputs, 1, project=False) for _ in range(depth - 1)])


class Upsample(nn.Module):
    """Nearest neighbours, then a convolution of one voxel."""

    def __init__(self, inputs, outputs, factors):
        super().__init__()
        self.conv = nn.Conv3d(inputs, outputs, 1)
        self.factors = [float(f) for f in factors]

    def forward(self, x):
        return self.conv(F.interpolate(x, scale_factor=self.factors, mode="nearest"))


class Switch:
    """nnU-Net switches deep supervision at `network.decoder`."""

    def __init__(self, on):
        self.deep_supervision = on


class STUNet(nn.Module):
    def __init__(self, channels, classes, strides, width, depth, deep_supervision):
        super().__init__()
        self.decoder = Switch(deep_supervision)
        down = list(zip(width[:-1], width[1:], strides))
        up = down[::-1]
        self.conv_blocks_context = nn.ModuleList(
            [stage(channels, width[0], depth)] + [stage(a, b, depth, tuple(s)) for a, b, s in down])
        self.upsample_layers = nn.ModuleList([Upsample(b, a, s) for a, b, s in up])
        self.conv_blocks_localization = nn.ModuleList([stage(2 * a, a, depth) for a, _, _ in up])
        self.seg_outputs = nn.ModuleList([nn.Conv3d(a, classes, 1) for a, _, _ in up])

    def forward(self, x):
        skips, outputs = [], []
        for block in self.conv_blocks_context:
            x = block(x)
            skips.append(x)
        x = skips.pop()
        for upsample, block, head in zip(self.upsample_layers, self.conv_blocks_localization, self.seg_outputs):
            x = block(torch.cat((upsample(x), skips.pop()), 1))
            if self.decoder.deep_supervision:
                outputs.append(head(x))
        return outputs[::-1] if self.decoder.deep_supervision else self.seg_outputs[-1](x)


def five_strides(configuration):
    """The plans' strides, made up to STU-Net's five by stages that do not shrink."""
    planned = [list(s) for s in configuration.network_arch_init_kwargs["strides"]][1:]
    return (planned + [[1, 1, 1]] * 5)[:5]


class STUNetTrainer_custom(nnUNetTrainer):
    WIDTH, DEPTH = [8, 16, 32, 64, 128, 128], 1

    def __init__(self, plans: dict, configuration: str, fold: int, dataset_json: dict,
                 device: torch.device = torch.device("cuda")):
        super().__init__(plans, configuration, fold, dataset_json, device)
        number = lambda name, default: int(os.environ.get(name, default))
        self.num_epochs = number("STU_EPOCHS", self.num_epochs)
        self.num_iterations_per_epoch = number("STU_ITERS", self.num_iterations_per_epoch)
        self.num_val_iterations_per_epoch = number("STU_VAL_ITERS", self.num_val_iterations_per_epoch)
        # Every patch has foreground, and every run draws the same: a network of a few dozen steps finds some.
        self.oversample_foreground_percent = 1.0
        np.random.seed(1)
        torch.manual_seed(1)

    def perform_actual_validation(self, save_probabilities: bool = False):
        if os.environ.get("STU_VALIDATE") != "0":
            super().perform_actual_validation(save_probabilities)

    @classmethod
    def build_network_architecture(cls, plans_manager, configuration_manager, num_input_channels,
                                   num_output_channels, enable_deep_supervision=True):
        return STUNet(num_input_channels, num_output_channels, five_strides(configuration_manager), cls.WIDTH,
                      cls.DEPTH, enable_deep_supervision)

    def _get_deep_supervision_scales(self):
        factors = np.cumprod(np.vstack([[1, 1, 1]] + five_strides(self.configuration_manager)), axis=0)
        return [list(scale) for scale in 1 / factors][:-1]
