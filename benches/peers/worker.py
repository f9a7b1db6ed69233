#!/usr/bin/env python3
"""One peer in a process of its own, run whenever a line asks for it: see `run`.

    worker.py export FILE.onnx --size S                     the network, and its input as FILE.onnx.npy
    worker.py PEER --size S --task forward --onnx FILE      answers `run` and `sample FILE`

The weights are those of seed 1, the input that of seed 2, as in `benches/network`.
"""
import argparse
import json
import sys
import time

import numpy as np

STRIDE = 101  # of the logits that are compared


def status_bytes(field):
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith(field + ":"))


def measure(work):
    with open("/proc/self/clear_refs", "w") as f:
        f.write("5")  # the high-water mark goes back to what is resident now
    wall, cpu = time.perf_counter(), time.process_time()
    value = work()
    row = {"wall_secs": time.perf_counter() - wall, "cpu_secs": time.process_time() - cpu,
           "peak_bytes": status_bytes("VmHWM")}
    return value, row


# PyTorch is imported where it is used: it is no part of the other peers' memory.
def network(args):
    import stunet_torch as peer
    return peer.seed_parameters(peer.network(args.size, num_classes=args.classes), 1)


def inputs(args):
    import stunet_torch as peer
    return peer.uniform(2, 0, (args.batch, 1, *args.patch))


def torch_forward(args, channels_last=False, compiled=False):
    import torch
    torch.set_num_threads(args.threads)
    model, x = network(args).eval(), torch.from_numpy(inputs(args))
    if channels_last:
        model = model.to(memory_format=torch.channels_last_3d)
        x = x.to(memory_format=torch.channels_last_3d)
    forward = torch.compile(model) if compiled else model
    return torch.inference_mode()(lambda: forward(x))


def torch_train(args, channels_last=False, compiled=False):
    import stunet_torch as peer
    import torch
    torch.set_num_threads(args.threads)
    model, x = network(args), torch.from_numpy(inputs(args))
    if channels_last:
        model = model.to(memory_format=torch.channels_last_3d)
        x = x.to(memory_format=torch.channels_last_3d)
    targets = peer.make_targets(3, args.batch, args.patch, args.classes, "cpu")
    forward = torch.compile(model.forward_deep) if compiled else model.forward_deep
    step = peer.TrainingStep(model, forward, x, targets, amp=False)
    return lambda: step().detach()


def openvino(args, precision="f32"):
    import openvino
    # Said aloud: left to itself OpenVINO computes in bf16 where the processor can.
    hints = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1",
             "INFERENCE_NUM_THREADS": str(args.threads), "ENABLE_CPU_PINNING": False}
    compiled = openvino.Core().compile_model(args.onnx, "CPU", hints)
    request, x = compiled.create_infer_request(), np.load(args.onnx + ".npy")

    def forward():
        request.infer([x], share_inputs=True)
        return request.get_output_tensor(0).data

    return forward


def onnxruntime(args):
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = args.threads, 1
    session = onnxruntime.InferenceSession(args.onnx, options, providers=["CPUExecutionProvider"])
    feed = {"image": np.load(args.onnx + ".npy")}
    return lambda: session.run(None, feed)[0]


PEERS = {
    "torch": {"forward": torch_forward, "train": torch_train},
    "torch-channels-last": {"forward": lambda a: torch_forward(a, channels_last=True),
                            "train": lambda a: torch_train(a, channels_last=True)},
    "torch-compile": {"forward": lambda a: torch_forward(a, compiled=True),
                      "train": lambda a: torch_train(a, compiled=True)},
    "openvino": {"forward": openvino},
    "openvino-bf16": {"forward": lambda a: openvino(a, "bf16")},
    "onnxruntime": {"forward": onnxruntime},
}


def export(args):
    import torch
    model, x = network(args).eval(), inputs(args)
    torch.onnx.export(model, (torch.from_numpy(x),), args.file, input_names=["image"],
                      output_names=["logits"], dynamo=True, external_data=False, verbose=False)
    np.save(args.file + ".npy", x)


def say(row):
    print(json.dumps(row), flush=True)


def serve(args):
    step = PEERS[args.peer][args.task](args)
    say({"ready": True, "threads": args.threads, "version": version(args.peer)})
    for line in sys.stdin:
        command, _, file = line.strip().partition(" ")
        if command == "run":
            value, row = measure(step)
            row["resident_bytes"] = status_bytes("VmRSS")
            if args.task == "train":
                row["value"] = float(value)
            del value
            say(row)
        else:
            np.asarray(step(), dtype="<f4").reshape(-1)[::STRIDE].tofile(file)
            say({"stride": STRIDE})


def version(name):
    module = __import__(name.split("-")[0])
    return f"{module.__name__} {module.__version__}"


def main():
    ints = lambda text: [int(v) for v in text.split(",")]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=["export", *PEERS])
    parser.add_argument("file", nargs="?")
    parser.add_argument("--size", default="S")
    parser.add_argument("--task", default="forward", choices=["forward", "train"])
    parser.add_argument("--patch", type=ints, default=[128, 128, 128])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--classes", type=int, default=105)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--onnx", help="what `export` wrote")
    args = parser.parse_args()
    if args.peer == "export":
        export(args)
    else:
        serve(args)


if __name__ == "__main__":
    main()
