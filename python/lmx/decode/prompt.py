"""From what callers pass as a prompt to tokens."""

import operator
from collections.abc import Mapping, Sequence
from typing import cast

from torch import Tensor

from ..protocols import LayeredModel
from .checks import require
from .options import Prompt


def encode(model: LayeredModel, prompt: Prompt) -> list[int]:
    """Return the tokens of a text, of chat messages (through the chat template), or of tokens.

    Args:
        model: its tokenizer is used; it is not needed for tokens.
        prompt: text; or token ids; or messages with "role" and "content", to which the model is
            to answer.

    Raises:
        ValueError: the prompt is none of these, or there is no tokenizer for it.
    """
    kinds = "text, a list of token ids or a list of chat messages"
    require(isinstance(prompt, str | Sequence | Tensor), "prompt", kinds, prompt)
    is_chat = not isinstance(prompt, str) and len(prompt) > 0 and isinstance(prompt[0], Mapping)
    if isinstance(prompt, str) or is_chat:
        require(model.tokenizer is not None, "prompt", "tokens: the model has no tokenizer", prompt)
    if isinstance(prompt, str):
        return list(model.tokenizer.encode(prompt))
    if is_chat:
        return list(
            model.tokenizer.apply_chat_template(
                prompt, add_generation_prompt=True, tokenize=True, return_dict=False
            )
        )
    try:
        return [operator.index(token) for token in cast(Sequence[int], prompt)]
    except TypeError:
        raise ValueError(f"prompt: expected {kinds}, got {prompt!r}") from None
