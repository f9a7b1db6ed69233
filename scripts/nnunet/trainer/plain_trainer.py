"""nnU-Net's own trainer, made short: the plain U-Net of the plans, as the standard trainers have it.

STU_EPOCHS, STU_ITERS and STU_VAL_ITERS shorten the training, STU_VALIDATE=0 leaves out the final validation.
Every patch has foreground, so that a network of a few dozen steps finds some.
"""
import os

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class nnUNetTrainer_short(nnUNetTrainer):
    def __init__(self, plans: dict, configuration: str, fold: int, dataset_json: dict,
                 device: torch.device = torch.device("cuda")):
        super().__init__(plans, configuration, fold, dataset_json, device)
        number = lambda name, default: int(os.environ.get(name, default))
        self.num_epochs = number("STU_EPOCHS", self.num_epochs)
        self.num_iterations_per_epoch = number("STU_ITERS", self.num_iterations_per_epoch)
        self.num_val_iterations_per_epoch = number("STU_VAL_ITERS", self.num_val_iterations_per_epoch)
        self.oversample_foreground_percent = 1.0

    def perform_actual_validation(self, save_probabilities: bool = False):
        if os.environ.get("STU_VALIDATE") != "0":
            super().perform_actual_validation(save_probabilities)
