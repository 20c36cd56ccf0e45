"""Where a loader is, as a small JSON, and what becomes of it when the run goes on with something else."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from mimic_wds.loading.mixing import Mixture
from mimic_wds.loading.order import Order


class Position(NamedTuple):
    """The next global batch."""

    epoch: int
    step: int
    note: str = ""  #: for people: what became of the samples of the epoch that had begun; "" = nothing changed


def make_state(manifest: str, order: Order | Mixture, position: tuple[int, int]) -> dict[str, Any]:
    """The state of a loader: the hash of the data set's manifest, what makes the order, epoch and next step."""
    return {"manifest": manifest, **order.state(), "epoch": position[0], "step": position[1]}


def exact_position(state: Mapping[str, Any], manifest: str, order: Order | Mixture, where: object) -> Position:
    """The position of a state in the order that it was saved for.

    Raises ValueError naming what differs, and when it is no state at all; `where` names the data set.
    """
    own = make_state(manifest, order, (0, 0))
    for name in {**own, **state}:
        if name not in ("epoch", "step") and state.get(name) != own.get(name):
            raise ValueError(
                f"this run was at another {name} ({state.get(name)}) than the one given now ({own.get(name)}): resume "
                f"with the same data set ({where}), seed, global batch, lanes, window and mixture"
            )
    return _checked(state, order.steps_per_epoch)


def adapted_order(state: Mapping[str, Any], order: Order | Mixture) -> Order | Mixture:
    """`order` with the lanes and the window of a state, if its global batch can have them: the same permutation."""
    lanes, window = state.get("lanes"), state.get("window")
    if not isinstance(order, Order) or type(lanes) is not int or type(window) is not int:
        return order
    try:
        return order.laid_out(lanes, window)
    except ValueError:
        return order


def adapted_position(state: Mapping[str, Any], manifest: str, order: Order | Mixture) -> Position:
    """The position in another order that does the most of what a state says.

    Where the samples, their permutation and the lanes are the same and only the global batch is another, the samples
    that were consumed are known: the very next one comes next if that is a whole number of the new batches. Otherwise
    nobody could say without reading which samples the begun epoch still lacks; so it ends early, and the next one
    begins, in which every sample comes once. Raises ValueError when it is no state at all.
    """
    epoch, step, _ = _checked(state)
    own = make_state(manifest, order, (0, 0))
    names = {**own, **state}
    changed = [name for name in names if name not in ("epoch", "step") and state.get(name) != own.get(name)]
    if not changed and step < order.steps_per_epoch:
        return Position(epoch, step)
    if changed == ["global_batch"] and isinstance(order, Order):
        consumed = step * int(state["global_batch"])
        new_step, rest = divmod(consumed, order.global_batch)
        if not rest and new_step < order.steps_per_epoch:
            return Position(epoch, new_step, f"going on after {consumed} samples of epoch {epoch}, none again")
    what = f"another {' and '.join(changed)} than before"
    if step == 0:
        return Position(epoch, 0, f"{what}: epoch {epoch} has the new order from its beginning")
    left_out = f"epoch {epoch} ends after its {step} steps, what was still to come is left out"
    return Position(epoch + 1, 0, f"{what}: {left_out}; epoch {epoch + 1} begins with every sample in the new order")


def _checked(state: Mapping[str, Any], steps: int | None = None) -> Position:
    """Epoch and step of a state. Raises ValueError when they are none, or no step of an epoch of so many steps."""
    epoch, step = state.get("epoch"), state.get("step")
    if type(epoch) is not int or type(step) is not int or min(epoch, step) < 0 or (steps and step >= steps):
        size = f"; an epoch has {steps} steps" if steps else ""
        raise ValueError(f"no state of this loader: epoch {epoch!r}, step {step!r}{size}")
    return Position(epoch, step)
