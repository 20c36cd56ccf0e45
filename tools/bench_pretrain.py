#!/usr/bin/env python3
"""Time a pretraining step, one trick after the other, against the same model written the plain way.

    python tools/bench_pretrain.py --json runs/bench-pretrain.json
    python tools/bench_pretrain.py --objective mae --batch 256 --data shards/demo

The variants take turns, so a busy machine slows all of them. Read the ratios: medians over the rounds of ratios to the
plain one (fp32, attention spelt out, AdamW in a loop) within a round. FLOPs are those that the model must do, counted
by torch.utils.flop_counter; utilisation is their rate by that of a large matrix product measured here, or by
--peak-tflops, the maker's number. A CPU that does not compute in bfloat16 leaves those variants out. With --data the
last variant also trains on a data set, and says how long it waited for it.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

try:
    import torch
    from timm.models.vision_transformer import Attention
    from torch import Tensor, nn
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from mimic_wds.loading.dataset import PairDataset
    from mimic_wds.loading.pairs import PairLoader
    from mimic_wds.loading.transforms import normalize
    from mimic_wds.models.build import ModelConfig, build_model
    from mimic_wds.training.meters import Meter
    from mimic_wds.training.optimizer import parameter_groups
except ModuleNotFoundError as error:
    sys.exit(f"bench_pretrain: {error.name} is missing; install it with: pip install 'mimic-wds[train]'")


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to run the same step."""

    name: str
    sdpa: bool = False  #: the fused attention kernel instead of softmax(QK^T)V
    fused: bool = False  #: AdamW as one kernel
    bf16: bool = False
    compiled: bool = False


VARIANTS = (
    Variant("plain fp32"),
    Variant("plain bf16", bf16=True),
    Variant("fp32, fused attention", sdpa=True),
    Variant("fp32, fused attention and AdamW", sdpa=True, fused=True),
    Variant("bf16, fused attention", sdpa=True, bf16=True),
    Variant("bf16, fused attention and AdamW", sdpa=True, bf16=True, fused=True),
    Variant("fp32, all of these, compiled", sdpa=True, fused=True, compiled=True),
    Variant("bf16, all of these, compiled", sdpa=True, bf16=True, fused=True, compiled=True),
)

Step = Callable[[], None]
Inputs = tuple[Tensor, ...]


def main() -> int:
    """Let the variants take turns and report."""
    args = parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        torch.set_num_threads(args.threads)
    ratio = 0.9 if args.objective == "croco" else 0.75
    config = ModelConfig(objective=args.objective, size=args.size, image_size=args.image_size, mask_ratio=ratio)
    batch = args.batch or (128 if device.type == "cuda" else 8)
    inputs = made_up(config, batch, device)
    flops = step_flops(config) * batch
    bf16 = has_bf16(device)
    wanted = [v for v in VARIANTS if (bf16 or not v.bf16) and (args.compile or not v.compiled)]
    steps = {variant.name: make_step(variant, config, inputs) for variant in wanted}
    peak = args.peak_tflops * 1e12 or matmul_rate(device, torch.bfloat16 if bf16 else torch.float32)
    times = take_turns(steps, args.repetitions, device)
    report = summary(times, batch, flops, peak, args, device)
    if args.data:
        try:
            report["training"] = train_on(args.data, config, wanted[-1], batch, args.steps, device)
        except ValueError as error:
            print(f"bench_pretrain: {error}", file=sys.stderr)
            return 2
    print_report(report)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


def parse_args() -> argparse.Namespace:
    """The command line."""
    description, _, notes = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=description, epilog=notes, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--objective", choices=("croco", "mae"), default="croco", help="what is trained")
    parser.add_argument("--size", default="base", help="of the encoder: tiny, small, base, large (default: base)")
    parser.add_argument("--image-size", type=int, default=224, help="pixels (default: 224)")
    parser.add_argument("--batch", type=int, default=0, help="pairs or images a step (default: 128 on a GPU, else 8)")
    parser.add_argument("--threads", type=int, default=1, help="of torch, without a GPU (default: 1)")
    parser.add_argument("--repetitions", type=int, default=5, help="rounds that are counted (default: 5)")
    parser.add_argument("--compile", action="store_true", help="also try torch.compile (needs a C++ compiler)")
    parser.add_argument("--peak-tflops", type=float, default=0.0, help="of the device, in bfloat16; 0 = measure")
    parser.add_argument("--data", type=Path, metavar="DIR", help="also train on this data set of pairs")
    parser.add_argument("--steps", type=int, default=20, help="with --data (default: 20)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write all numbers to this file")
    return parser.parse_args()


def made_up(config: ModelConfig, batch: int, device: torch.device) -> Inputs:
    """A batch of noise: what the model is called with."""
    generator = torch.Generator().manual_seed(0)
    views = 2 if config.objective == "croco" else 1
    images = [torch.randn(batch, 3, *config.image_shape, generator=generator) for _ in range(views)]
    noise = torch.rand(batch, config.num_patches, generator=generator)
    return tuple(tensor.to(device) for tensor in (*images, noise))


def step_flops(config: ModelConfig) -> int:
    """FLOPs of forward and backward for one sample, of matrix products and attention; nothing is computed."""
    with torch.device("meta"):
        model = build_model(config)
        views = 2 if config.objective == "croco" else 1
        images = [torch.randn(2, 3, *config.image_shape) for _ in range(views)]
        noise = torch.rand(2, config.num_patches)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(*images, noise).loss.backward()
    return counter.get_total_flops() // 2


def make_step(variant: Variant, config: ModelConfig, inputs: Inputs) -> Step:
    """One optimizer step of a variant on fixed inputs; same weights for all."""
    device = inputs[0].device
    torch.manual_seed(0)
    model: Any = build_model(config).to(device)
    use_kernel(model, variant.sdpa)
    optimizer = torch.optim.AdamW(
        parameter_groups(model, 0.05), lr=1e-5, betas=(0.9, 0.95), fused=variant.fused, foreach=False
    )
    called = torch.compile(model) if variant.compiled else model

    def step(*given: Tensor) -> None:
        attention = nullcontext() if variant.sdpa else sdpa_kernel(SDPBackend.MATH)
        with attention, torch.autocast(device.type, torch.bfloat16, enabled=variant.bf16):
            loss = called(*(given or inputs)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def use_kernel(model: nn.Module, fused: bool) -> None:
    """Let the attention of timm's blocks use the fused kernel, or spell it out."""
    for module in model.modules():
        if isinstance(module, Attention):
            module.fused_attn = fused


def take_turns(steps: dict[str, Step], repetitions: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of a step of each variant, in each round; the first round is not counted."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repetitions + 1):
        for name, step in steps.items():
            wait(device)
            start = time.perf_counter()
            step()
            wait(device)
            times[name].append(time.perf_counter() - start)
    return {name: values[1:] for name, values in times.items()}


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def has_bf16(device: torch.device) -> bool:
    """Whether the device computes in bfloat16; a CPU without it is some twenty times slower than in float32."""
    return device.type == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported()


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a large matrix product, the best of ten."""
    size = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        wait(device)
        start = time.perf_counter()
        a @ b
        wait(device)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def train_on(
    folder: Path, config: ModelConfig, variant: Variant, batch: int, steps: int, device: torch.device
) -> dict[str, float]:
    """Steps of a variant on a data set: pairs per second, and the share of the time that it waited for them."""
    if config.objective != "croco":
        raise ValueError("--data needs --objective croco")
    with PairDataset(folder) as dataset, closing(batches(dataset, config, batch, device)) as arriving:
        step: Any = make_step(variant, config, made_up(config, batch, device))
        step(*next(arriving))
        meter = Meter()
        for inputs in meter.watch(islice(arriving, steps)):
            step(*inputs)
            wait(device)
            meter.add(batch)
        rate, waited = meter.read()
    return {"pairs_per_s": rate, "waiting": waited}


def batches(dataset: PairDataset, config: ModelConfig, batch: int, device: torch.device) -> Iterator[Inputs]:
    """Batches of a data set without end, ready for the model."""
    loader = PairLoader(dataset, global_batch=batch, num_threads=2, pin_memory=device.type == "cuda")
    noise = torch.rand(batch, config.num_patches, device=device)
    epoch = 0
    while True:
        for loaded in loader.epoch(epoch):
            yield normalize(loaded.image0, device), normalize(loaded.image1, device), noise
        epoch += 1


def summary(
    times: dict[str, list[float]], batch: int, flops: int, peak: float, args: argparse.Namespace, device: torch.device
) -> dict[str, Any]:
    """All numbers, as JSON."""
    plain = times[VARIANTS[0].name]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.processor()}, {args.threads}"
    return {
        "command": " ".join(sys.argv),
        "device": name,
        "torch": torch.__version__,
        "batch": batch,
        "gflop_per_sample": flops / batch / 1e9,
        "peak_tflops": peak / 1e12,
        "peak_memory_gib": torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None,
        "variants": {
            variant.name: {
                **asdict(variant),
                "seconds": times[variant.name],
                "median_s": statistics.median(times[variant.name]),
                "samples_per_s": batch / statistics.median(times[variant.name]),
                "utilisation": flops / statistics.median(times[variant.name]) / peak,
                "times_plain": statistics.median(a / b for a, b in zip(plain, times[variant.name], strict=True)),
            }
            for variant in VARIANTS
            if variant.name in times
        },
    }


def print_report(report: dict[str, Any]) -> None:
    """The table."""
    print(f"{report['device']}; torch {report['torch']}; batch {report['batch']}")
    print(f"{report['gflop_per_sample']:.1f} GFLOP a sample; matrix products reach {report['peak_tflops']:.2f} TFLOP/s")
    if report["peak_memory_gib"] is not None:
        print(f"most memory of all variants: {report['peak_memory_gib']:.1f} GiB")
    print(f"{'variant':<34}{'s/step':>9}{'samples/s':>11}{'of peak':>9}{'x plain':>9}")
    for name, row in report["variants"].items():
        print(
            f"{name:<34}{row['median_s']:>9.3f}{row['samples_per_s']:>11.2f}{row['utilisation']:>9.1%}"
            f"{row['times_plain']:>9.2f}"
        )
    if "training" in report:
        training = report["training"]
        print(f"on the data set: {training['pairs_per_s']:.2f} pairs/s, waiting for data {training['waiting']:.1%}")


if __name__ == "__main__":
    sys.exit(main())
