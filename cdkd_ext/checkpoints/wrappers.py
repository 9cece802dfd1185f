"""The weights of one network among what training programs store beside and around them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

# the best first; averaged weights are taken where there are no others
_NESTED = (
    "best_state_dict", "state_dict", "model_state_dict", "model_state", "model", "net", "network", "student",
    "weights", "params", "module", "ema_state_dict", "state_dict_ema", "model_ema", "ema_model", "ema",
)  # fmt: skip
_DEEPEST = 8
# of a network beside others: what stands before all its names
_NETWORKS = ("student.", "model.", "net.", "network.")
_OTHER_NETWORKS = (
    "teacher.",
    "teacher_model.",
    "distill_losses.",
    "ema.",
    "ema_model.",
    "model_ema.",
    "ema_net.",
)
# these occur between other parts of a name as well
_WRAPPERS = ("module", "_orig_mod")
_COUNTERS = ("n_averaged", "steps")
# parts of networks, never wrappers
_PARTS = ("backbone", "head", "keypoint_head")


def find_weights(content: Any) -> tuple[Any, tuple[str, ...]]:
    """The innermost mapping of tensors in a file's content, and the keys of other ones that were passed over.

    Content that has no such mapping is returned as it is.
    """
    dropped: list[str] = []
    for _ in range(_DEEPEST):
        if not isinstance(content, Mapping):
            break
        nested = [key for key, value in content.items() if _holds_tensors(value)]
        known = [key for key in _NESTED if key in nested]
        whole = [key for key in nested if _is_all_tensors(content[key])]
        others = any(isinstance(value, Tensor) for value in content.values())
        if known:
            chosen = known[0]
        elif not others and len(whole or nested) == 1:
            chosen = (whole or nested)[0]
        else:
            break
        dropped += [str(key) for key in whole if key != chosen]
        content = content[chosen]
    return content, tuple(dropped)


def unwrap_names(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The weights of one network without what wrappers put before its names, and the names of the others.

    Wrappers are stripped in any order until nothing changes. Of several networks the student is taken, and of a network
    with averaged twins (mmcv before 2.0: ``ema_`` and the name with underscores) the real one.
    """
    found = dict(weights)
    dropped: list[str] = []
    while True:
        before = found.keys()
        found, left_out = _one_network(found)
        dropped += left_out
        found = _without_wrappers(found)
        if found.keys() == before:
            return found, tuple(dropped)


def _one_network(weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The names of the network that is wanted, stripped, and those of others."""
    flat = {f"ema_{name.replace('.', '_')}" for name in weights}
    kept = {
        name: value
        for name, value in weights.items()
        if not (name in flat or name.startswith(_OTHER_NETWORKS) or name in _COUNTERS)
    }
    # nothing but a teacher or an average is what the file is for
    kept = kept or weights
    prefix = next((prefix for prefix in _NETWORKS if any(name.startswith(prefix) for name in kept)), "")
    kept = {name: value for name, value in kept.items() if name.startswith(prefix)}
    return {name.removeprefix(prefix): value for name, value in kept.items()}, [
        name for name in weights if name not in kept
    ]


def _without_wrappers(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names without DistributedDataParallel's and torch.compile's parts, and without what is before all of them."""
    stripped = {_stripped(name): value for name, value in weights.items()}
    # two names that become one are two tensors: none is thrown away
    weights = stripped if len(stripped) == len(weights) else weights
    first = {name.partition(".")[0] for name in weights}
    rests = [name.partition(".")[2] for name in weights]
    if len(first) == 1 and not first & {*_PARTS} and all(map(_is_name_in_network, rests)):
        return dict(zip(rests, weights.values(), strict=True))
    return weights


def _stripped(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _is_name_in_network(name: str) -> bool:
    """Whether it has a module of its own before its parameter, and is no place in a sequence."""
    return "." in name and not name[0].isdigit()


def _holds_tensors(value: Any, depth: int = _DEEPEST) -> bool:
    if not isinstance(value, Mapping) or depth == 0:
        return False
    return any(isinstance(entry, Tensor) for entry in value.values()) or any(
        _holds_tensors(value[key], depth - 1) for key in _NESTED if key in value
    )


def _is_all_tensors(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(entry, Tensor) for entry in value.values())
    )
