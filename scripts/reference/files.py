"""Where the recording goes, and how: NumPy archives and JSON, without dates."""
import json
import os

import numpy as np


class Folder:
    """One folder of the golden data."""

    def __init__(self, root, name):
        self.path = os.path.join(root, name)
        os.makedirs(self.path, exist_ok=True)

    def __call__(self, name):
        return os.path.join(self.path, name)

    def arrays(self, name, arrays):
        np.savez_compressed(self(name), **{key: np.asarray(value) for key, value in arrays.items()})

    def json(self, name, content):
        with open(self(name), "w") as file:
            json.dump(content, file, indent=1, default=plain)
            file.write("\n")


def plain(value):
    """NumPy's numbers as Python's."""
    return value.tolist() if hasattr(value, "tolist") else list(value)
