"""What ``drafter="..."`` stands for."""

from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

import torch

from .. import vocab
from ..protocols import Drafter, LayeredModel
from ..tree import (
    Merged,
    PromptLookup,
    Sizer,
    StepCosts,
    TokenRecycling,
    from_chain,
    likeliest,
    measure_costs,
    token_recycling,
)
from .early_exit import EarlyExit
from .forward import Runner, chains
from .pages import new_cache, pages_for

FORMS = "recycle, recycle:NODES, recycle:auto, lookup, lookup:TOKENS, lookup:auto, "
FORMS += "early-exit:LAYERS"
_CONTEXT = 128  # tokens in pages while costs are measured
_SIZES = (1, 2, 3, 4, 5, 6, 8, 11, 16, 24, 32, 48, 64, 81)
_DEAREST = 4.0  # beyond this cost no tree of ours pays
_LOOKUP = 10  # tokens that prompt lookup drafts

_costs: WeakKeyDictionary[LayeredModel, StepCosts] = WeakKeyDictionary()


def parse(text: str, model: LayeredModel) -> Drafter | None:
    """Return the drafter that a short string names: one of ``FORMS``, or several joined by ``+``.

    ``"none"`` is None.

    Raises:
        ValueError: it is none of them, or a number is out of its range.
    """
    if text == "none":
        return None
    if "+" in text:
        parts = [parse(part, model) for part in text.split("+")]
        return Merged([part for part in parts if part is not None])
    kind, _, rest = text.partition(":")
    makers: dict[str, Callable[[str, LayeredModel], Drafter]] = {
        "recycle": _recycle,
        "lookup": _lookup,
        "early-exit": _early_exit,
    }
    if kind not in makers or (kind == "early-exit" and not rest):
        raise ValueError(f"drafter={text!r}: expected one of: {FORMS}")
    return makers[kind](rest, model)


def step_costs(model: LayeredModel, sizes: Sequence[int] = _SIZES) -> StepCosts:
    """Measure c(n): a pass over a chain of n tokens, its logits and their argmax.

    A model is measured once, over sizes up to the first that costs four plain steps.
    """
    if model not in _costs:
        _costs[model] = _measure(model, sizes)
    return _costs[model]


@torch.inference_mode()
def _measure(model: LayeredModel, sizes: Sequence[int]) -> StepCosts:
    context = max(1, min(_CONTEXT, model.max_positions // 2))
    cache = new_cache(model, 1, pages_for(context) + 1)
    runner = Runner(model, cache)
    handle = cache.create()
    tokens = [i % model.vocab_size for i in range(context)]
    slots = cache.reserve([handle], [context])
    runner.commit(runner.forward(chains([(0, 0, tokens)], 1, 0, model.device)), slots)
    cache.commit([handle], [context])

    def run(size: int) -> list[int]:
        rows = chains([(0, context, tokens[:1] * size)], 1, context, model.device)
        return vocab.argmax(model.norm_head(runner.forward(rows).hidden)).tolist()

    usable = [n for n in sizes if context + n <= model.max_positions]
    costs = measure_costs(run, usable[:1], repeats=2)
    for count in range(2, len(usable) + 1):  # what is too dear is not measured thrice
        trial = measure_costs(run, (1, usable[count - 1]), repeats=1)
        if trial(usable[count - 1]) > _DEAREST or count == len(usable):
            costs = measure_costs(run, usable[:count], repeats=3)
            break
    return costs


def _recycle(rest: str, model: LayeredModel) -> Drafter:
    sizer, template = None, token_recycling()
    if rest == "auto":
        costs = step_costs(model)
        template = likeliest(max(2, costs.sizes[-1]))
        sizer = Sizer(template, costs)
    elif rest:
        count = _number("recycle", rest, 1, 1023)
        template = token_recycling() if count == 80 else likeliest(count + 1)
    return TokenRecycling(model.vocab_size, template=template, sizer=sizer, device=model.device)


def _lookup(rest: str, model: LayeredModel) -> Drafter:
    if rest == "auto":
        costs = step_costs(model)
        length = max(1, min(_LOOKUP, costs.sizes[-1] - 1))
        return PromptLookup(num_draft=length, sizer=Sizer(from_chain(length), costs))
    return PromptLookup(num_draft=_number("lookup", rest, 1, 1023) if rest else _LOOKUP)


def _early_exit(rest: str, model: LayeredModel) -> Drafter:
    return EarlyExit(layers=_number("early-exit", rest, 1, max(1, model.num_layers - 1)))


def _number(name: str, text: str, least: int, most: int) -> int:
    if not text.isdecimal() or not least <= int(text) <= most:
        raise ValueError(f"drafter: expected {name}:N with N in [{least}, {most}], got {text!r}")
    return int(text)
