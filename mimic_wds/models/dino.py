"""DINO (Caron et al. 2021, arXiv 2104.14294): a student learns to say of a crop what its teacher says of another.

The teacher has the student's weights, averaged over time, and never a gradient; its answers are centred and sharpened.
Class `DINO` is the teacher, since that is what is used afterwards, and holds its `student`: encoder weights lie under
the same names in every pretraining model. Names are those of the published weights (`head.mlp.0.weight`, ...).

Shapes: B images, V crops of each (2 global ones first), K outputs of the head, T tokens, D encoder width.
"""

from typing import Any, NamedTuple, cast

import torch
import torch.distributed
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from mimic_wds.models.dino_recipe import NUM_GLOBAL, DinoConfig, cosine, teacher_temperature
from mimic_wds.models.multicrop import NUM_DRAWS, crop
from mimic_wds.models.vit import Encoder, through


class DinoOutput(NamedTuple):
    """What DINO returns."""

    loss: Tensor  #: () float32
    entropy: Tensor  #: () float32, of the teacher's answers in nats; near 0 or log K says that it has collapsed
    losses: Tensor  #: (B,) float32 of each image, without gradient

    @property
    def measures(self) -> dict[str, Tensor]:
        """Numbers () worth watching."""
        return {"entropy": self.entropy}


class Head(nn.Module):
    """Three linear layers with GELU, a unit vector, and a layer whose rows are unit vectors (fixed weight norm)."""

    def __init__(self, dim: int, config: DinoConfig) -> None:
        super().__init__()
        hidden, narrow = config.hidden_dim, config.bottleneck_dim
        self.mlp = nn.Sequential(
            nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, narrow)
        )
        self.last_layer = UnitRows(narrow, config.out_dim)
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, D) -> (N, K)."""
        return self.last_layer(F.normalize(self.mlp(x).float(), dim=-1))


class UnitRows(nn.Module):
    """A linear layer without bias whose rows have the lengths `weight_g`, which are 1 and not trained."""

    learns: Tensor

    def __init__(self, dim: int, outputs: int) -> None:
        super().__init__()
        self.weight_g = nn.Parameter(torch.ones(outputs, 1), requires_grad=False)
        self.weight_v = nn.Parameter(nn.Linear(dim, outputs, bias=False).weight.detach())
        self.register_buffer("learns", torch.ones(()), persistent=False)  # 0 while the layer is frozen

    def forward(self, x: Tensor) -> Tensor:
        """(N, dim) -> (N, outputs)."""
        # The value of weight_v, its gradient times `learns`: together, processes need a gradient of everything.
        weight = torch.lerp(self.weight_v.detach(), self.weight_v, self.learns)
        return F.linear(x, F.normalize(weight, dim=1) * self.weight_g)


class DinoNetwork(Encoder):
    """A ViT with trained positions, for images of several sizes, and the head on its class token."""

    def __init__(self, *, config: DinoConfig, image_size: int | tuple[int, int], patch_size: int, dim: int, depth: int,
                 heads: int) -> None:  # fmt: skip
        super().__init__(image_size=image_size, patch_size=patch_size, dim=dim, depth=depth, heads=heads)
        self.patch_embed.strict_img_size = False
        self.head = Head(dim, config)
        self.initialise()

    def position_table(self, dim: int) -> nn.Parameter:
        """Trained positions (1, T, dim), where MAE's are fixed."""
        return nn.Parameter(torch.zeros(1, 1 + self.num_patches, dim))

    def initialise(self) -> None:
        """Linear layers of the blocks, token and positions normal(0, 0.02); zero biases (as DeiT and DINO)."""
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        assert self.cls_token is not None
        assert self.pos_embed is not None
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def describe(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
        """Class tokens (N, D) of normalised images (N, 3, H, W) of any size that is a multiple of the patch.

        keep (N, depth, 2): what the two branches of every block are multiplied by (stochastic depth); None = 1.
        """
        assert self.cls_token is not None
        x = self.patch_embed(images)
        rows, cols = (side // self.patch_size for side in images.shape[-2:])
        x = torch.cat([self.cls_token.to(x.dtype).expand(len(x), -1, -1), x], dim=1) + self.positions(rows, cols)
        if keep is None:
            x = through(self.blocks, x, recompute=self.recompute)
        else:
            thinned = [Thinned(cast(Block, block), keep[:, number]) for number, block in enumerate(self.blocks)]
            x = through(thinned, x, recompute=self.recompute)
        return self.norm(x)[:, 0]

    def positions(self, rows: int, cols: int) -> Tensor:
        """The table (1, 1 + rows * cols, D), resized as a picture (bicubic) where the grid is another one."""
        assert self.pos_embed is not None
        if (rows, cols) == (self.rows, self.cols):
            return self.pos_embed
        picture = self.pos_embed[:, 1:].transpose(1, 2).unflatten(2, (self.rows, self.cols)).float()
        picture = F.interpolate(picture, size=(rows, cols), mode="bicubic", align_corners=False)
        return torch.cat([self.pos_embed[:, :1], picture.flatten(2).transpose(1, 2)], dim=1)


class Thinned:
    """A block whose two branches are multiplied, image by image, by `keep` (N, 2)."""

    def __init__(self, block: Block, keep: Tensor) -> None:
        self.block, self.keep = block, keep

    def __call__(self, x: Tensor) -> Tensor:
        """(N, T, D) -> (N, T, D)."""
        attention, mlp = (part.to(x.dtype).view(-1, 1, 1) for part in self.keep.unbind(1))
        x = x + attention * self.block.attn(self.block.norm1(x))
        return x + mlp * self.block.mlp(self.block.norm2(x))


class DINO(DinoNetwork):
    """Teacher (its own weights) and student. A step is `begin_step`, forward, backward, optimizer, `finish_step`."""

    centre: Tensor
    temperature: Tensor

    def __init__(
        self,
        *,
        image_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        config: DinoConfig | None = None,
    ) -> None:
        config = config or DinoConfig()
        sizes: dict[str, Any] = {
            "image_size": image_size,
            "patch_size": patch_size,
            "dim": dim,
            "depth": depth,
            "heads": heads,
        }
        super().__init__(config=config, **sizes)
        self.config = config
        self.student = DinoNetwork(config=config, **sizes)
        for parameter in self.teacher_weights().values():
            parameter.requires_grad_(False)
        follow(self.teacher_weights(), dict(self.student.named_parameters()), 0.0)
        self.kinds = config.crop_kinds(self.image_shape)
        self.register_buffer("centre", torch.zeros(config.out_dim))
        self.register_buffer("temperature", torch.tensor(config.teacher_temp), persistent=False)
        self._answers: list[Tensor] = []  # of this step, one mean (K,) for each micro-batch

    @property
    def num_draws(self) -> int:
        """Random numbers of an image."""
        return self.config.num_draws(len(self.blocks))

    def teacher_weights(self) -> dict[str, nn.Parameter]:
        """The teacher's weights by the names that the student has for its own."""
        return {name: p for name, p in self.named_parameters() if not name.startswith("student.")}

    def weights_were_loaded(self) -> None:
        """Give the student the teacher's weights."""
        follow(dict(self.student.named_parameters()), self.teacher_weights(), 0.0)

    def begin_step(self, epoch: float) -> None:
        """Set what depends on the epoch (fractional) and forget the answers of a step that was not finished."""
        self.temperature.fill_(teacher_temperature(self.config, epoch))
        self.student.head.last_layer.learns.fill_(float(epoch >= self.config.freeze_last_layer_epochs))
        self._answers = []

    @torch.no_grad()
    def finish_step(self, progress: float) -> None:
        """After the optimizer's step: teacher and centre follow. progress: share of the schedule before it, 0 to 1.

        All processes call this together. Left out where the weights were left alone.
        """
        momentum = cosine(self.config.teacher_momentum, 1.0, progress)
        follow(self.teacher_weights(), dict(self.student.named_parameters()), momentum)
        if self._answers:
            mean = torch.stack(self._answers).mean(0)
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                torch.distributed.all_reduce(mean)
                mean /= torch.distributed.get_world_size()
            self.centre.lerp_(mean, 1 - self.config.centre_momentum)
            self._answers = []

    def forward(self, images: Tensor, draws: Tensor) -> DinoOutput:
        """Normalised images (B, 3, H, W) and draws (B, num_draws) in [0, 1)."""
        crops, keep = self.crops(images, draws)
        with torch.no_grad():
            teacher = self.head(self.describe(crops[0])).unflatten(0, (NUM_GLOBAL, -1)).float()
        tokens = torch.cat([self.student.describe(part, kept) for part, kept in zip(crops, keep, strict=True)])
        student = self.student.head(tokens).unflatten(0, (-1, len(images))).float()
        if self.training:
            self._answers.append(teacher.mean((0, 1)))
        return dino_loss(student, teacher, self.centre, self.config.student_temp, self.temperature)

    @torch.no_grad()
    def crops(self, images: Tensor, draws: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The global crops (2B, 3, H, W), then the local ones (.., 3, h, w), crop by crop; and their `keep`."""
        draws = draws.unflatten(1, (len(self.kinds), -1)).transpose(0, 1)  # (V, B, numbers of a crop)
        cropped = [crop(images, own[:, :NUM_DRAWS], kind) for own, kind in zip(draws, self.kinds, strict=True)]
        keep = stochastic_depth(draws[..., NUM_DRAWS:].unflatten(2, (-1, 2)), self.config.drop_path)
        parts = [slice(NUM_GLOBAL), slice(NUM_GLOBAL, None)][: 1 + (len(cropped) > NUM_GLOBAL)]
        return [torch.cat(cropped[part]) for part in parts], [keep[part].flatten(0, 1) for part in parts]


def dino_loss(
    student: Tensor, teacher: Tensor, centre: Tensor, student_temp: float, teacher_temp: float | Tensor
) -> DinoOutput:
    """Cross-entropy of the student's answers (V, B, K) to the teacher's on the global crops (2, B, K); centre (K,).

    Mean over all pairs of a global crop and another crop, and over images. No gradient flows to teacher and centre.
    """
    logits = (teacher.detach() - centre) / teacher_temp
    target, log_target = logits.softmax(-1), logits.log_softmax(-1)
    said = (student / student_temp).log_softmax(-1)
    others = said.sum(0) - said[: len(teacher)]  # (2, B, K): all crops but the one that the teacher saw
    pairs = len(teacher) * (len(student) - 1)
    losses = -(target * others).sum(-1).sum(0) / pairs
    return DinoOutput(losses.mean(), -(target * log_target).sum(-1).mean(), losses.detach())


@torch.no_grad()
def follow(teacher: dict[str, nn.Parameter], student: dict[str, nn.Parameter], momentum: float) -> None:
    """In place: teacher = momentum * teacher + (1 - momentum) * student, weight by weight of the same names."""
    assert teacher.keys() == student.keys()
    torch._foreach_lerp_(list(teacher.values()), [student[name].detach() for name in teacher], 1 - momentum)


def stochastic_depth(draws: Tensor, rate: float) -> Tensor:
    """What branches are multiplied by: draws (..., depth, 2) -> 0 with a probability, else the inverse of the rest.

    The probability grows linearly from 0 in the first block to `rate` in the last (Huang et al. 2016, as in DeiT).
    """
    depth = draws.shape[-2]
    lost = torch.linspace(0, rate, depth, device=draws.device).view(depth, 1)
    return (draws >= lost) / (1 - lost)
