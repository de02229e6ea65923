"""A call without ``status`` writes to nothing: under ``torch.compile`` it is a pure function.

Torch wraps every call of an op whose schema has an argument that is written to, also where that
argument is None, and inductor fails to unwrap the call where the op returns one tensor (torch 2.11
to 2.13). So a call without status is traced as the op's overload ``no_status``, which has the same
kernel.
"""

from typing import Any

import torch
from torch._higher_order_ops.auto_functionalize import do_auto_functionalize_v2
from torch._ops import OpOverload
from torch._subclasses.functional_tensor import FunctionalTensorMode, PythonFunctionalizeAPI
from torch.library import register_fake


def _route(op: OpOverload, pure: OpOverload) -> None:
    """Trace ``op`` as ``pure`` where it has no status."""
    names = [argument.name for argument in op._schema.arguments]

    def traced(mode: FunctionalTensorMode, *args: Any, **kwargs: Any) -> Any:
        given = dict(zip(names, args, strict=False)) | kwargs
        if given.pop("status", None) is not None:
            return do_auto_functionalize_v2(mode, op, args, kwargs)
        context = PythonFunctionalizeAPI(mode=mode)
        with context.redispatch_to_next():
            plain = {name: context.unwrap_tensors(value) for name, value in given.items()}
            return context.wrap_tensors(pure(**plain))

    def fake(*args: Any, **kwargs: Any) -> Any:
        return op(*args, **kwargs)

    op.py_impl(FunctionalTensorMode)(traced)
    register_fake(pure.name())(fake)


def route_calls_without_status() -> None:
    """Do so for every op that has an overload ``no_status``."""
    for schema in torch._C._jit_get_all_schemas():
        if schema.name.startswith("lmx::") and schema.overload_name == "no_status":
            packet = getattr(torch.ops.lmx, schema.name.removeprefix("lmx::"))
            _route(packet.default, packet.no_status)
