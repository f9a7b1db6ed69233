#!/usr/bin/env python3
"""A network trained here, loaded by PyTorch: the same logits?

    roundtrip_torch.py FOLDER

FOLDER holds what `tests/roundtrip.rs` leaves there: `model.model`, `model.pth`, `network.json` (the
configuration), `input.f32` and `logits.f32` (little endian) with their shapes in `shapes.json`.
Needs torch and numpy.
"""
import json
import pathlib
import sys

import numpy as np
import torch

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "benches" / "peers"))
from stunet_torch import StuNet  # noqa: E402

TOLERANCE = 5e-4


def main(folder):
    folder = pathlib.Path(folder)
    config = json.loads((folder / "network.json").read_text())
    shapes = json.loads((folder / "shapes.json").read_text())
    array = lambda name: np.fromfile(folder / f"{name}.f32", "<f4").reshape(shapes[name])
    x, expected = torch.from_numpy(array("input")), array("logits")
    failed = False
    for file, key in [("model.model", "state_dict"), ("model.pth", "network_weights")]:
        # Our files hold tensors and plain values only: torch's safe loading takes them.
        checkpoint = torch.load(folder / file, map_location="cpu", weights_only=True)
        model = StuNet(config["in_channels"], config["num_classes"], config["width"],
                       config["depth"], config["strides"])
        model.load_state_dict(checkpoint[key], strict=True)
        with torch.inference_mode():
            found = model.eval()(x).numpy()
        worst = float(np.abs(found - expected).max())
        spread = float(expected.std())
        optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.99, nesterov=True)
        key = "optimizer_state_dict" if file.endswith(".model") else "optimizer_state"
        optimiser.load_state_dict(checkpoint[key])
        buffers = [optimiser.state[p]["momentum_buffer"] for p in model.parameters()]
        moving = sum(float(b.abs().max()) > 0 for b in buffers)
        print(f"CI: {file}: largest difference {worst:.2e} at a spread of {spread:.2f}, "
              f"{moving} of {len(buffers)} momentum buffers not zero")
        failed |= not worst <= TOLERANCE or spread < 1e-2 or moving < len(buffers) // 2
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
