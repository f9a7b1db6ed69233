"""What nnU-Net 2.8.1's trainer variants compute: losses with gradients, learning rates, steps of optimisers.

    venv/v28/bin/python scripts/reference/record_variants.py [FOLDER]     default: tests/data/variants

The trainers' own methods (`_build_loss`, `configure_optimizers`) make the objects; only the rest of the
trainer is stood in for. Logits, parameters and gradients are seeded numbers (seeded.py), which the tests
make again; labels are recorded.
"""
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.loss import (
    nnUNetTrainerCELoss as ce,
    nnUNetTrainerDiceLoss as dice,
    nnUNetTrainerTopkLoss as topk,
)
from nnunetv2.training.nnUNetTrainer.variants.lr_schedule import nnUNetTrainer_warmup as warmup
from nnunetv2.training.nnUNetTrainer.variants.lr_schedule.nnUNetTrainerCosAnneal import nnUNetTrainerCosAnneal
from nnunetv2.training.nnUNetTrainer.variants.optimizer import nnUNetTrainerAdam as adam

import seeded

SEED = 4711
SCALES = [(4, 5, 6), (2, 3, 3), (1, 2, 2)]
NUM_CLASSES, IGNORE, REGIONS = 4, 4, [[1, 2, 3], [2, 3], [3]]
LOSSES = {
    "dice-ce": nnUNetTrainer,
    "dice-ce-no-smooth": dice.nnUNetTrainerDiceCELoss_noSmooth,
    "dice": dice.nnUNetTrainerDiceLoss,
    "ce": ce.nnUNetTrainerCELoss,
    "topk10": topk.nnUNetTrainerTopk10Loss,
    "topk10-ls01": topk.nnUNetTrainerTopk10LossLS01,
    "dice-topk10": topk.nnUNetTrainerDiceTopK10Loss,
}
WITH_DICE = ("dice-ce", "dice-ce-no-smooth", "dice", "dice-topk10")
WITH_REGIONS = ("dice-ce", "dice-ce-no-smooth", "dice")


def labels(ignored):
    """Labels of every scale, some of them ignored."""
    high = NUM_CLASSES + (1 if ignored else 0)
    return [seeded.integers(SEED + ignored, scale, (2,) + size, high) for scale, size in enumerate(SCALES)]


def as_target(labels, ignored, regions):
    if not regions:
        return torch.from_numpy(labels[:, None].astype(np.float32))
    channels = [np.isin(labels, region) for region in REGIONS] + ([labels == IGNORE] if ignored else [])
    return torch.from_numpy(np.stack(channels, 1))


def loss(name, batch_dice, ignored, regions):
    trainer = SimpleNamespace(
        label_manager=SimpleNamespace(
            has_regions=regions, ignore_label=IGNORE if ignored else None, has_ignore_label=ignored),
        configuration_manager=SimpleNamespace(batch_dice=batch_dice),
        is_ddp=False, enable_deep_supervision=True, _do_i_compile=lambda: False,
        _get_deep_supervision_scales=lambda: SCALES,
    )
    built = LOSSES[name]._build_loss(trainer)
    channels = len(REGIONS) if regions else NUM_CLASSES
    logits = [torch.from_numpy(3 * seeded.uniform(SEED, 10 + scale, (2, channels) + size)).requires_grad_()
              for scale, size in enumerate(SCALES)]
    value = built(logits, [as_target(of, ignored, regions) for of in labels(ignored)])
    value.backward()
    gradients = [of.grad.numpy().ravel() for of in logits[:2]]
    assert logits[2].grad is None
    return {
        "loss": name, "batch_dice": batch_dice, "ignored": ignored, "regions": regions,
        "value": value.item(), "norms": [float(np.linalg.norm(g.astype(np.float64))) for g in gradients],
        "sampled": [[float(v) for v in g[::3]] for g in gradients],
    }


def losses():
    cases = []
    for name in LOSSES:
        for ignored in (False, True):
            # With an ignored label nnUNetTrainerDiceLoss stops: it looks for a class of that number.
            if name == "dice" and ignored:
                continue
            for batch_dice in (True, False) if name in WITH_DICE else (True,):
                cases.append(loss(name, batch_dice, ignored, False))
                if name in WITH_REGIONS:
                    cases.append(loss(name, batch_dice, ignored, True))
    recorded = {str(ignored).lower(): [of.ravel().tolist() for of in labels(ignored)] for ignored in (False, True)}
    return {"seed": SEED, "scales": SCALES, "classes": NUM_CLASSES, "ignore": IGNORE, "regions": REGIONS,
            "labels": recorded, "cases": cases}


def stand_in(num_epochs, parameters):
    network = SimpleNamespace(parameters=lambda: parameters)
    return SimpleNamespace(network=network, initial_lr=0.01, weight_decay=3e-5, num_epochs=num_epochs,
                           device=torch.device("cpu"), training_stage=None, warmup_duration_whole_net=50,
                           current_epoch=0, print_to_log_file=lambda *_: None)


def rates(cls, num_epochs):
    trainer = stand_in(num_epochs, [torch.nn.Parameter(torch.zeros(1))])
    found = []
    for epoch in range(num_epochs):
        trainer.current_epoch = epoch
        if cls is warmup.nnUNetTrainer_warmup and epoch in (0, 50):
            made = cls.configure_optimizers(trainer, "train" if epoch else "warmup_all")
            trainer.optimizer, trainer.lr_scheduler = made
        elif epoch == 0:
            trainer.optimizer, trainer.lr_scheduler = cls.configure_optimizers(trainer)
        trainer.lr_scheduler.step(epoch)
        found.append(trainer.optimizer.param_groups[0]["lr"])
    return {"num_epochs": num_epochs, "rates": found}


def steps(cls):
    shapes = [(2, 1, 3, 3, 3), (2,)]
    parameters = [torch.nn.Parameter(torch.from_numpy(seeded.uniform(SEED, 20 + i, shape)))
                  for i, shape in enumerate(shapes)]
    trainer = stand_in(20, parameters)
    optimizer, scheduler = cls.configure_optimizers(trainer)
    for step in range(20):
        scheduler.step(step)
        for i, parameter in enumerate(parameters):
            # Large and small in turn, so that the largest second moment differs from the present one.
            scale = np.float32(0.5 if step % 4 == 0 else 0.125)
            parameter.grad = torch.from_numpy(scale * seeded.uniform(SEED, 100 + 2 * step + i, shapes[i]))
        torch.nn.utils.clip_grad_norm_(parameters, 12)
        optimizer.step()
    return [[float(v) for v in p.detach().numpy().ravel()] for p in parameters]


def main():
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[2] / "tests/data/variants")
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    schedules = {"poly": rates(nnUNetTrainer, 200), "cosine": rates(nnUNetTrainerCosAnneal, 200),
                 "warmup": rates(warmup.nnUNetTrainer_warmup, 1000)}
    optimisers = {"seed": SEED, "sgd": steps(nnUNetTrainer), "adamw-amsgrad": steps(adam.nnUNetTrainerAdam),
                  "adam": steps(adam.nnUNetTrainerVanillaAdam)}
    for name, recorded in [("losses", losses()), ("schedules", schedules), ("optimisers", optimisers)]:
        (folder / f"{name}.json").write_text(json.dumps(recorded, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
