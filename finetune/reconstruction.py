"""How well a pretrained model fills in hidden patches: masked L2, PSNR, SSIM, and with a feature network FID and KID.

    python finetune/reconstruction.py runs/croco --data shards/held-out --images 500 --mask-ratio 0.9
    python finetune/reconstruction.py runs/croco --data shards/held-out --extractor inception.pt --layer pool3

The L2 is the pretraining loss: of patches normalised by themselves where the model was trained so. Pictures take
brightness and contrast of hidden patches from the visible ones ("honest") or from the truth ("oracle", as published);
visible patches are pasted back. --extractor is a TorchScript file, uint8 (B, 3, H, W) -> features (B, d), that you
supply: none comes with this package. Distances compare only with others of the same network, layer and N.

Of CroCo on pairs there is also the L2 with references of other pairs (the same for a model that ignores its reference),
and the attention agreement, beside what looking always at the same place, or anywhere, would give.
Exit codes: 0 done, 1 failed, 2 wrong arguments or data.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

try:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from mimic_wds.downstream.metrics.frechet import frechet_distance, kernel_distance
    from mimic_wds.downstream.metrics.pictures import psnr_db, ssim
    from mimic_wds.loading.dataset import PairDataset, open_dataset
    from mimic_wds.loading.images import ImageLoader
    from mimic_wds.loading.pairs import PairLoader
    from mimic_wds.loading.transforms import normalize
    from mimic_wds.models.build import ModelConfig, build_model
    from mimic_wds.models.reconstruct import Reconstruction, reconstruct
    from mimic_wds.training import checkpoint
    from mimic_wds.training.attention import Agreement, attention_agreement
    from mimic_wds.training.batches import step_noise
    from mimic_wds.training.pictures import contact_sheet, write_png
except ModuleNotFoundError as error:
    sys.exit(f"reconstruction: {error.name} is missing; install it with: pip install 'mimic-wds[train]'")

DONE, FAILED, USAGE = 0, 1, 2
BATCH = 25


class Samples(NamedTuple):
    """A batch, normalised, on the device."""

    image0: Tensor  #: (B, 3, H, W)
    image1: Tensor | None  #: of CroCo
    noise: Tensor  #: (B, L) picks the hidden patches
    corr_0to1: Tensor | None  #: (B, L) where it is stored for as many patches


def main() -> int:
    """Reconstruct and measure; returns the exit code."""
    args = parse_arguments()
    try:
        measure(args)
    except ValueError as error:
        print(f"reconstruction: {error}", file=sys.stderr)
        return USAGE
    except (OSError, RuntimeError) as error:
        print(f"reconstruction: {error}", file=sys.stderr)
        return FAILED
    return DONE


def measure(args: argparse.Namespace) -> None:
    """All numbers, and a picture."""
    # --- model, with the share of hidden patches that is asked for
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    folder = args.run if (args.run / checkpoint.STATE_NAME).is_file() else checkpoint.latest(args.run) or args.run
    config = checkpoint.read_state(folder).config.model
    if config.objective == "dino":
        raise ValueError(f"{args.run} is a run of DINO, which reconstructs nothing")
    config = replace(config, mask_ratio=args.mask_ratio) if args.mask_ratio else config
    model = build_model(config).to(device).eval()
    checkpoint.load_weights(model, checkpoint.read_weights(folder), str(folder))
    extract = read_extractor(args.extractor, device) if args.extractor else None

    # --- batch by batch
    losses, decibels, similarities, kept = list[float](), list[float](), list[float](), list[Reconstruction]()
    others, agreements = list[float](), list[tuple[int, Agreement]]()
    features: tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]] = ([], [])
    for each in batches(args, config, device):
        loss, pictures = fill_in(model, config, each, args.mode)
        losses += [loss] * len(each.image0)  # the mean over all: every image has as many hidden patches
        if each.image1 is not None:
            other = each._replace(image1=each.image1.roll(1, 0))
            others += [fill_in(model, config, other, args.mode)[0]] * len(each.image0)
            if each.corr_0to1 is not None:
                known = int((each.corr_0to1 >= 0).sum())
                agreements.append(
                    (known, attention_agreement(model, each.image0, each.image1, each.corr_0to1, each.noise))
                )
        pairs = list(zip(pictures.target, pictures.prediction, strict=True))
        decibels += [psnr_db(*pair) for pair in pairs]
        similarities += [ssim(*pair) for pair in pairs]
        kept += [pictures] if not kept else []
        if extract:
            for store, which in zip(features, (pictures.target, pictures.prediction), strict=True):
                store.append(extract(which))

    # --- what is told
    found = {
        "images": len(losses),
        "mask_ratio": config.mask_ratio,
        "mode": args.mode,
        "masked_l2": float(np.mean(losses)),
        "psnr_db": float(np.mean(decibels)),
        "ssim": float(np.mean(similarities)),
    }
    if others:
        found["masked_l2_other_reference"] = float(np.mean(others))
    found |= averaged(agreements)
    if extract:
        real, made = (np.concatenate(store) for store in features)
        found |= {
            "fid": frechet_distance(real, made),
            "kid": kernel_distance(real, made),
            "extractor": str(args.extractor),
            "layer": args.layer,
            "features": real.shape[1],
        }
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "reconstruction.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    write_png(args.output / "reconstruction.png", contact_sheet([(n, p[:6]) for n, p in kept[0].columns]))
    print(json.dumps(found) if args.json else "\n".join(f"{name:<26} {value}" for name, value in found.items()))


def fill_in(model: nn.Module, config: ModelConfig, samples: Samples, mode: str) -> tuple[float, Reconstruction]:
    """Loss and pictures of a batch."""
    image0, image1, noise, _ = samples
    with torch.inference_mode():
        output = model(image0, noise) if image1 is None else model(image0, image1, noise)
    pictures = reconstruct(
        image0,
        output.prediction,
        output.mask,
        patch_size=config.patch_size,
        norm_pix_loss=config.norm_pix_loss,
        mode=mode,
        reference=image1,
    )
    return float(output.loss), pictures


def averaged(agreements: Sequence[tuple[int, Agreement]]) -> dict[str, float]:
    """Means over all patches with a correspondence, of (how many, agreement) of batches; nothing if there are none."""
    total = sum(known for known, _ in agreements)
    if not total:
        return {}
    names = {"attention": "share", "attention_same_place": "same_place", "attention_chance": "chance"}
    return {
        name: sum(known * getattr(each, field) for known, each in agreements if known) / total
        for name, field in names.items()
    }


def batches(args: argparse.Namespace, config: ModelConfig, device: torch.device) -> Iterator[Samples]:
    """The first `args.images` samples by seed.

    Raises ValueError when there are too few, or they do not fit the model.
    """
    dataset = open_dataset(args.data)
    num = args.images
    if num > len(dataset):
        raise ValueError(f"{args.data} holds {len(dataset)} samples, --images asks for {num}")
    batch = next(size for size in range(min(BATCH, num), 0, -1) if num % size == 0)
    if isinstance(dataset, PairDataset):
        side = config.image_shape[0]
        loader = PairLoader(dataset, size=side, augmentation="none", global_batch=batch, seed=args.seed)
    elif config.objective == "croco":
        raise ValueError(f"{args.data} holds single images, but CroCo needs pairs")
    else:
        loader = ImageLoader(dataset, size=config.image_shape, augmentation="none", global_batch=batch, seed=args.seed)
    noise = step_noise(args.seed, 0, num, config.num_patches)
    with closing(loader.epoch(0)) as epoch:
        for number, each in zip(range(num // batch), epoch, strict=False):
            first = each.image0 if hasattr(each, "image0") else each.image
            second, corr = None, None
            if config.objective == "croco":
                second = normalize(each.image1, device)
                corr = each.corr_0to1.to(device) if each.corr_0to1.shape[1] == config.num_patches else None
            yield Samples(normalize(first, device), second, noise[number * batch :][:batch].to(device), corr)


def read_extractor(path: Path, device: torch.device) -> Callable[[NDArray[np.uint8]], NDArray[np.float64]]:
    """Pictures (B, H, W, 3) uint8 -> features (B, d). Raises ValueError for a file that is no TorchScript."""
    try:
        network = torch.jit.load(str(path), map_location=device).eval()
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{path}: not a TorchScript network ({error})") from None

    def extract(pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
        with torch.inference_mode():
            found = network(torch.from_numpy(pictures.copy()).permute(0, 3, 1, 2).to(device))
        return found.flatten(1).double().cpu().numpy()

    return extract


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="output folder of train/pretrain.py, or a checkpoint in it")
    parser.add_argument("--data", required=True, metavar="DIR|URL", help="held-out pairs or images")
    parser.add_argument("--images", type=int, default=500, help="how many (the paper takes 500)")
    parser.add_argument("--mask-ratio", type=float, default=0.0, help="share of hidden patches; default: as pretrained")
    parser.add_argument("--mode", choices=("honest", "oracle"), default="oracle", help="see above")
    parser.add_argument("--extractor", type=Path, help="TorchScript file of the feature network")
    parser.add_argument("--layer", default="unnamed", help="name of the layer it gives, for the record")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of samples and of the masks")
    parser.add_argument("--output", type=Path, default=Path("runs/reconstruction"), help="folder to write to")
    parser.add_argument("--json", action="store_true", help="print what reconstruction.json holds")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
