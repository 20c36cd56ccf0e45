"""Write the weights of a run, or of a published file, as others name them.

    python train/export.py runs/croco_vitb16 --layout timm --output encoder.safetensors
    python train/export.py mae_pretrain_vit_base.pth --layout multimae --output encoder.pth

Layouts: timm (the encoder), mae (encoder and, of MAE, the decoder), croco (naver's names) and multimae (as it
finetunes). A .safetensors file holds the weights alone, any other suffix torch's format with the layout's wrapper.
Exit codes: 0 done, 2 wrong arguments or files.
"""

import argparse
import sys
from pathlib import Path

try:
    import safetensors.torch
    import torch
    from torch import Tensor

    from mimic_wds.models.published import EXPORTS, read_published, to_ours
    from mimic_wds.storage.files import atomic_write
    from mimic_wds.training import checkpoint
except ModuleNotFoundError as error:
    sys.exit(f"export: {error.name} is missing; install what training needs with: pip install 'mimic-wds[train]'")


def main() -> int:
    """Read, rename, write. Returns the exit code."""
    args = parse_arguments()
    try:
        weights = EXPORTS[args.layout](read(args.weights))
        inner = weights.get("model", weights)
        with atomic_write(args.output) as file:
            if args.output.suffix == ".safetensors":
                file.write(safetensors.torch.save({name: t.contiguous() for name, t in inner.items()}))
            else:
                torch.save(dict(weights), file)
    except (ValueError, OSError) as error:
        print(f"export: {error}", file=sys.stderr)
        return 2
    count = sum(t.numel() for t in inner.values())
    print(f"{args.output}: {len(inner)} tensors, {count:,} values, {args.layout} layout")
    return 0


def read(where: Path) -> dict[str, Tensor]:
    """Weights under this package's names, of a checkpoint, the newest one of a run, or a published file."""
    folder = where if (where / checkpoint.STATE_NAME).is_file() else checkpoint.latest(where)
    if folder:
        return checkpoint.read_weights(folder)
    return to_ours(read_published(where))[0]


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "weights", type=Path, metavar="RUN|FILE", help="a run or checkpoint of train/pretrain.py, or a file"
    )
    parser.add_argument("--layout", choices=sorted(EXPORTS), default="timm", help="whose names (default: timm)")
    parser.add_argument("--output", type=Path, required=True, help=".safetensors, or .pth, .pt, .bin")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
