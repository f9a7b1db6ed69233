"""What nnU-Net 1.7.1 does, recorded: preprocessing, windows, export, loss; and the network's numbers.

The network is ours (network.py): STU-Net was published inside this version of nnU-Net, as a trainer.
"""
import contextlib
import copy
import io
import os
from collections import OrderedDict

import numpy as np
import torch
from nnunet.inference.segmentation_export import save_segmentation_nifti
from nnunet.inference.segmentation_export import save_segmentation_nifti_from_softmax
from nnunet.network_architecture.neural_network import SegmentationNetwork
from nnunet.preprocessing.preprocessing import GenericPreprocessor, resample_data_or_seg
from nnunet.training.data_augmentation.downsampling import downsample_seg_for_ds_transform2
from nnunet.training.learning_rate.poly_lr import poly_lr
from nnunet.training.loss_functions.deep_supervision import MultipleOutputLoss2
from nnunet.training.loss_functions.dice_loss import DC_and_CE_loss
from nnunet.utilities.nd_softmax import softmax_helper
from batchgenerators.augmentations.utils import pad_nd_image

import cases
import network
import seeded
from files import Folder


class Predicting(SegmentationNetwork):
    """Our network, as nnU-Net 1.7.1 wants one that it is to predict with."""

    def __init__(self, net, classes):
        super().__init__()
        self.net, self.num_classes = net, classes
        self.conv_op, self.inference_apply_nonlin = torch.nn.Conv3d, softmax_helper

    def forward(self, x):
        return self.net(x)

    def predict(self, image, patch, mirrored):
        """Labels and probabilities by the sliding window; the way of a processor without mixed precision."""
        self.eval()
        with torch.no_grad():
            return self.predict_3D(
                image, do_mirroring=mirrored, mirror_axes=(0, 1, 2), use_sliding_window=True,
                step_size=0.5, patch_size=tuple(patch), regions_class_order=None, use_gaussian=True,
                all_in_gpu=False, verbose=False, mixed_precision=False)


def scales_of(pools):
    """The factors of deep supervision: one for each head, finest first."""
    return [[1.0, 1.0, 1.0]] + (1 / np.cumprod(np.vstack(pools), axis=0)).tolist()[:-1]


def supervision(outputs):
    weights = np.array([1 / 2**i for i in range(outputs)])
    weights[-1] = 0
    return weights / weights.sum()


def dice_and_ce(batch_dice):
    return DC_and_CE_loss({"batch_dice": batch_dice, "smooth": 1e-5, "do_bg": False}, {})


def targets_of(labels, pools):
    """Labels [N, 1, Z, Y, X] at every scale."""
    return downsample_seg_for_ds_transform2(labels, scales_of(pools), order=0)


def tensors(arrays, dtype=torch.float32):
    return [torch.from_numpy(np.ascontiguousarray(a)).to(dtype) for a in arrays]


# The network: logits, two losses, gradients.

def sampled_gradients(net, prefix):
    found = {}
    for key, parameter in net.named_parameters():
        if parameter.grad is not None:
            g = parameter.grad.numpy()
            found[prefix + key] = seeded.sample(g, 256)
            wide = g.astype(np.float64)
            found[prefix + key + "#stat"] = [g.size, wide.sum(), np.sqrt((wide**2).sum()), np.abs(wide).max()]
    return found


def record_networks(root):
    folder, described = Folder(root, "A_model"), {}
    for name, case in cases.NETWORKS.items():
        pools, shape = case["pool_op_kernel_sizes"], case["input_shape"]
        net = network.StuNet(case["input_channels"], case["num_classes"], case["dims"], case["depth"], pools)
        sha = network.seed(net, case["seed_weights"])
        image = np.float32(case["input_scale"]) * seeded.uniform(case["seed_input"], 0, shape)
        labels = seeded.label_blobs(case["seed_label"], [shape[0]] + shape[2:], case["num_classes"])[:, None]
        targets, weights = targets_of(labels.astype(np.float32), pools), supervision(5)
        arrays = {"input": image, "ds_weights": weights}
        arrays.update({"target%d" % i: t.astype(np.uint8) for i, t in enumerate(targets)})

        outputs = net.deep(torch.from_numpy(image))
        arrays.update({"out%d" % i: o.detach().numpy() for i, o in enumerate(outputs)})
        exact = copy.deepcopy(net).double().deep(torch.from_numpy(image).double())
        distance = [float((o.double() - e).abs().max()) for o, e in zip(outputs, exact)]

        loss = MultipleOutputLoss2(dice_and_ce(True), weights)(outputs, tensors(targets))
        loss.backward()
        arrays.update(sampled_gradients(net, "grad_v1ds/"))
        arrays["loss_v1_ds"] = loss.item()

        net.zero_grad(set_to_none=True)
        linear = 0
        for i, out in enumerate(net.deep(torch.from_numpy(image))):
            factor = torch.from_numpy(seeded.uniform(case["seed_linear"], i, tuple(out.shape)))
            linear = linear + (i + 1) * (out * factor).mean()
        linear.backward()
        arrays.update(sampled_gradients(net, "grad_linear/"))
        arrays["loss_linear"] = linear.item()

        folder.arrays(name + ".npz", arrays)
        described[name] = dict(case, keys=network.shapes(net), weights_sha256=sha, f64_maxdiff=distance)
    folder.json("cases.json", described)


# The loss by itself.

def record_losses(root):
    folder, described, arrays = Folder(root, "B_loss"), {}, {}
    labels = seeded.label_blobs(101, cases.LOSS_SHAPE, cases.LOSS_CLASSES)[:, None]
    shape = [cases.LOSS_SHAPE[0], cases.LOSS_CLASSES] + cases.LOSS_SHAPE[1:]
    for name, batch_dice in [("v1_batch_dice", True), ("v1_sample_dice", False)]:
        logits = np.float32(2) * seeded.uniform(100, 0, shape)
        x, loss = torch.from_numpy(logits).requires_grad_(), dice_and_ce(batch_dice)
        target = torch.from_numpy(labels.astype(np.float32))
        value = loss(x, target)
        value.backward()
        described[name] = dict(
            loss=value.item(), dice=float(loss.dc(x, target)), ce=float(loss.ce(x, target[:, 0].long())),
            batch_dice=batch_dice)
        arrays.update({name + "/logits": logits, name + "/target": labels.astype(np.uint8),
                       name + "/grad": x.grad.numpy()})
    case = cases.DEEP_LOSS
    labels = seeded.label_blobs(case["seed_label"], case["shape"], case["classes"])[:, None]
    targets, weights = targets_of(labels.astype(np.float32), case["pools"]), supervision(5)
    outputs = deep_logits(targets)
    value = MultipleOutputLoss2(dice_and_ce(True), weights)(outputs, tensors(targets))
    value.backward()
    name = "v1_deep_supervision"
    described[name] = dict(
        loss=value.item(), weights=weights, scales=scales_of(case["pools"]), pools=case["pools"],
        seed_logits=case["seed"], scale=case["scale"], batch_dice=True,
        lowest_grad_is_none=outputs[-1].grad is None)
    arrays[name + "/label"] = labels.astype(np.uint8)
    arrays.update(deep_arrays(name, targets, outputs))
    folder.json("loss_v1.json", described)
    folder.arrays("loss_v1.npz", arrays)


def deep_logits(targets):
    case, outputs = cases.DEEP_LOSS, []
    for level, target in enumerate(targets):
        shape = (target.shape[0], case["classes"]) + tuple(target.shape[2:])
        values = np.float32(case["scale"]) * seeded.uniform(case["seed"], level, shape)
        outputs.append(torch.from_numpy(values).requires_grad_())
    return outputs


def deep_arrays(name, targets, outputs):
    arrays = {}
    for level, (target, out) in enumerate(zip(targets, outputs)):
        arrays["%s/target%d" % (name, level)] = np.asarray(target).astype(np.uint8)
        if out.grad is not None:
            arrays["%s/grad%d" % (name, level)] = seeded.sample(out.grad.numpy(), 4096) \
                if out.grad.numel() > 4096 else out.grad.numpy()
    return arrays


# Twenty updates.

def updates(dtype, steps=20):
    case = cases.TRAJECTORY
    net = network.StuNet(1, case["num_classes"], case["dims"], case["depth"], case["pools"])
    network.seed(net, case["seed_weights"])
    net = net.to(dtype)
    start = {key: value.clone() for key, value in net.state_dict().items()}
    loss = MultipleOutputLoss2(dice_and_ce(True), supervision(5))
    optimiser = torch.optim.SGD(net.parameters(), 0.01, weight_decay=3e-5, momentum=0.99, nesterov=True)
    path = {"losses": [], "grad_norms": [], "lrs": [], "param_l2": []}
    n, _, z, y, x = case["batch_shape"]
    for step in range(steps):
        rate = poly_lr(step, steps, 0.01, 0.9)
        optimiser.param_groups[0]["lr"] = rate
        image = np.float32(1.5) * seeded.uniform(case["seed_weights"] + 8000, step % 4, case["batch_shape"])
        seed = case["seed_weights"] + 9000 + step % 4
        labels = seeded.label_blobs(seed, [n, z, y, x], case["num_classes"])[:, None]
        targets = tensors(targets_of(labels.astype(np.float32), case["pools"]), dtype)
        optimiser.zero_grad(set_to_none=True)
        value = loss(net.deep(torch.from_numpy(image).to(dtype)), targets)
        value.backward()
        norm = torch.nn.utils.clip_grad_norm_(net.parameters(), 12)
        optimiser.step()
        squares = sum(float((p.detach().double() ** 2).sum()) for p in net.parameters())
        for key, number in zip(path, [value.item(), float(norm), rate, np.sqrt(squares)]):
            path[key].append(number)
    return net, start, optimiser, path


def record_trajectory(root):
    folder = Folder(root, "C_train")
    net, start, optimiser, single = updates(torch.float32)
    exact, _, _, double = updates(torch.float64)
    arrays, never, distance = {}, [], 0.0
    for (key, p), (_, e) in zip(net.named_parameters(), exact.named_parameters()):
        arrays["w/" + key] = seeded.sample(p.detach().numpy(), 256)
        distance = max(distance, float((p.detach().double() - e.detach()).abs().max()))
        if p in optimiser.state and "momentum_buffer" in optimiser.state[p]:
            arrays["m/" + key] = seeded.sample(optimiser.state[p]["momentum_buffer"].numpy(), 256)
        else:
            assert torch.equal(p, start[key])
            never.append(key)
    name = "tiny_depth1"
    folder.arrays(name + "_final_sampled.npz", arrays)
    folder.json("trajectories.json", {name: dict(
        cases.TRAJECTORY, never_updated=never, max_abs_final_weight_dev_f32_vs_f64=distance,
        f32=single, f64=double)})


# From files to the network's input.

def preprocessor(case, schemes):
    numbered = lambda values: OrderedDict(enumerate(values))
    intensities = {int(channel): values for channel, values in cases.INTENSITIES.items()}
    return GenericPreprocessor(
        numbered(schemes), numbered(case["use_mask"]), case["transpose_forward"], intensities)


def record_preprocessing(root):
    folder, described = Folder(root, "D_preproc"), {}
    for name, case in cases.PREPROCESSING.items():
        images = [folder("volumes/" + image) for image in case["images"]]
        seg = case["seg"] and folder("volumes/" + case["seg"])

        def run(schemes):
            spacing = np.array(case["target_spacing_transposed"])
            return preprocessor(case, schemes).preprocess_test_case(images, spacing, seg)

        final, labels, properties = run(case["norm"])
        arrays = {"bbox": properties["crop_bbox"], "final": final, "final_seg": labels.astype(np.int16)}
        if case.get("raw"):
            arrays["resampled"], _, _ = run(["noNorm"] * len(images))
        folder.arrays("v1_%s.npz" % name, arrays)
        described[name] = dict(
            case, original_spacing=properties["original_spacing"],
            original_size=properties["original_size_of_raw_data"], bbox=properties["crop_bbox"],
            resampled_shape=final.shape)
    folder.json("v1_cases.json", {"intensityproperties": cases.INTENSITIES, "cases": described})


# Windows.

def record_windows(root):
    folder, case = Folder(root, "E_sliding"), cases.WINDOW
    starts, pads = [], []
    for image, patch, step in [([128] * 3, [128] * 3, 0.5), ([200, 131, 129], [128] * 3, 0.5),
                               ([75, 64, 333], [16, 64, 160], 0.5), ([50, 49, 90], [20, 32, 48], 0.75)]:
        found = SegmentationNetwork._compute_steps_for_sliding_window(patch, image, step)
        starts.append(dict(image=image, patch=patch, step_size=step, steps=found))
    for image, patch in [([17, 60, 33], [32, 48, 64]), ([5, 6, 7], [8, 16, 16]), ([64] * 3, [32] * 3)]:
        padded, slicer = pad_nd_image(np.zeros([1] + image), patch, "constant", {"constant_values": 0}, True)
        inside = [[s.start, s.stop] for s in slicer[1:]]
        pads.append(dict(image=image, patch=patch, out=padded.shape[1:], slicer=inside))
    folder.json("steps_pads.json", {"steps": starts, "pads": pads})
    folder.arrays("gaussian_v1.npz", {
        "v1_gauss_" + "x".join(map(str, size)): SegmentationNetwork._get_gaussian(size, 1.0 / 8)
        for size in cases.IMPORTANCE_SIZES})

    net = network.StuNet(1, case["num_classes"], case["dims"], [1] * 6, case["pools"])
    sha = network.seed(net, case["seed"], case["seg_gain"])
    image = np.float32(1.7) * seeded.uniform(case["seed"] + 1, 0, case["shape"])
    arrays = {"data": image}
    for mirrored in [False, True]:
        labels, softmax = Predicting(net, case["num_classes"]).predict(image, case["patch"], mirrored)
        arrays["v1_softmax_mirror%d" % mirrored] = softmax
        arrays["v1_seg_mirror%d" % mirrored] = labels.astype(np.uint8)
    folder.arrays("predict_v1.npz", arrays)
    folder.json("predict_v1.json", dict(case, weights_sha256=sha))


# From file to labelmap.

def plan_file():
    """What lies beside a checkpoint of 1.7.1, as JSON."""
    pools, classes = cases.EXPORT_POOLS, cases.EXPORT["num_classes"]
    stage = dict(
        batch_size=2, patch_size=cases.EXPORT_PATCH, current_spacing=[1.5] * 3, original_spacing=[1.5] * 3,
        pool_op_kernel_sizes=pools, conv_kernel_sizes=[[3, 3, 3]] * 6, do_dummy_2D_data_aug=False,
        num_pool_per_axis=[sum(p[axis] == 2 for p in pools) for axis in range(3)],
        median_patient_size_in_voxels=[64, 64, 64])
    plans = dict(
        num_stages=1, num_modalities=1, modalities={"0": "nonCT"}, normalization_schemes={"0": "nonCT"},
        dataset_properties={"intensityproperties": None}, use_mask_for_norm={"0": False},
        num_classes=classes - 1, all_classes=list(range(1, classes)), transpose_forward=[0, 1, 2],
        transpose_backward=[0, 1, 2], base_num_features=32, conv_per_stage=2,
        plans_per_stage={"0": stage})
    init = ["", 0, "", "", False, 0, True, False, True]
    return {"init": init, "name": "STUNetTrainer_small", "plans": plans}


def record_export(root):
    folder, case, tag = Folder(root, "F_export"), cases.EXPORT, "v1_torso"
    seed, gain = cases.EXPORT_SEEDS["1.7.1"]
    plain = dict(use_mask=[False], transpose_forward=[0, 1, 2])
    image, _, properties = preprocessor(plain, ["nonCT"]).preprocess_test_case(
        [folder(case["image"])], np.array([1.5] * 3))
    net = network.StuNet(1, case["num_classes"], case["dims"], [1] * 6, cases.EXPORT_POOLS)
    sha = network.seed(net, seed, gain)
    labels, softmax = Predicting(net, case["num_classes"]).predict(image, cases.EXPORT_PATCH, False)

    own = lambda: copy.deepcopy(properties)  # the exports change what they are given
    save_segmentation_nifti_from_softmax(softmax, folder(tag + "_normal.nii.gz"), own(), 1)
    with contextlib.redirect_stdout(io.StringIO()):
        save_segmentation_nifti(labels, folder(tag + "_fast.nii.gz"), own(), 1, verbose=True)
    resampled = resample_data_or_seg(
        softmax, properties["size_after_cropping"], is_seg=False, axis=None, order=1, do_separate_z=False)
    top = np.sort(resampled, axis=0)
    folder.arrays(tag + "_margin.npz", {
        "margin_lt_1e4": np.packbits(top[-1] - top[-2] < 1e-4), "shape": resampled.shape[1:]})
    places = np.random.RandomState(7).choice(labels.size, cases.NUM_SAMPLES, replace=False)
    folder.arrays(tag + "_net.npz", {
        "seg_netres": labels.astype(np.uint8), "sample_idx": places,
        "softmax_at_idx": softmax.reshape(len(softmax), -1)[:, places],
        "preproc_at_idx": image.ravel()[places]})
    folder.json(tag + ".json", dict(
        case, tag=tag, seed=seed, seg_gain=gain, tta=False, weights_sha256=sha, pre_shape=image.shape,
        plan_file=plan_file(), class_counts=np.bincount(labels.ravel().astype(int))))


def record(root):
    os.environ.setdefault("nnUNet_raw_data_base", root)
    for part in [record_networks, record_losses, record_trajectory, record_preprocessing, record_windows,
                 record_export]:
        print(part.__name__, flush=True)
        with contextlib.redirect_stdout(io.StringIO()):
            part(root)
