"""Every wrong input has a message with op, argument, expected and got; nothing is written."""

import pytest
import torch
from layerskip_samples import blocks

import lmx
from lmx.layerskip import quantize_int8

X, W = torch.ones(3, 4), torch.ones(2, 5, 4)
GROUP = torch.tensor([0, 1, -1], dtype=torch.int32)
BF16 = torch.bfloat16
Q, SCALE = quantize_int8(torch.ones(2, 5, 4))

GEMM = [
    (dict(x=X[0]), r"expected x of shape \(num_rows, K\) = \[-1, -1\], got \[4\]"),
    (dict(weight=W[0]), r"expected weight of shape \(num_groups, N, K\) = \[-1, -1, 4\]"),
    (dict(weight=W[:, :, :3]), r"expected weight of shape .* = \[-1, -1, 4\], got \[2, 5, 3\]"),
    (dict(weight=W.transpose(1, 2).contiguous().transpose(1, 2)), "weight contiguous in the last"),
    (dict(x=X.T.contiguous().T), r"expected x contiguous in the last dimension, got strides"),
    (dict(weight=None), "expected exactly one of weight and weights, got neither"),
    (dict(weights=[W[0]]), "expected exactly one of weight and weights, got both"),
    (dict(weight=None, weights=[W[0], W[0, :4]]), r"expected weights\[1\] of shape .*\[5, 4\]"),
    (dict(weight=None, weights=[]), r"expected group\[0\] in \[-1, 0\), got 0"),
    (dict(weight=W.to(BF16)), "expected weight of dtype Float, got BFloat16"),
    (dict(x=X.double()), "expected x of dtype Float, Half or BFloat16, got Double"),
    (dict(group=GROUP[:2]), r"expected group of shape \(num_rows\) = \[3\], got \[2\]"),
    (dict(group=GROUP[None]), r"expected group of shape \(num_rows\) = \[3\], got \[1, 3\]"),
    (dict(group=GROUP.float()), "expected group of dtype Int, got Float"),
    (dict(group=GROUP.repeat_interleave(2)[::2]), "expected group contiguous, got sizes"),
    (dict(group=None), "expected group where there are 2 weight groups, got None"),
    (dict(bias=torch.ones(5)), r"expected bias of shape \(num_groups, N\) = \[2, 5\], got \[5\]"),
    (dict(bias=torch.ones(2, 5).int()), "expected bias of dtype Float, Half or BFloat16, got Int"),
    (dict(residual=torch.ones(3, 4)), r"expected residual of shape \(num_rows, N\) = \[3, 5\]"),
    (dict(residual=torch.ones(5, 3).T), "expected residual contiguous in the last dimension"),
    (dict(row_scale=torch.ones(2)), r"expected row_scale of shape \(num_rows\) = \[3\], got \[2\]"),
    (dict(row_scale=torch.ones(3).half()), "expected row_scale of dtype Float, got Half"),
    (dict(skipped="residual"), "expected residual where skipped is 'residual', got None"),
    (dict(skipped="keep"), "expected skipped to be 'keep' only in skip_gemm_out"),
    (dict(skipped="drop"), "expected skipped to be one of auto, zero, residual, keep, got drop"),
    (dict(activation="swish"), "expected activation to be one of none, relu, .* got swish"),
    (dict(format="q6_k"), "expected format to be one of dense, int8, q8_0, q4_0, q4_1, got q6_k"),
    (dict(out_dtype=torch.half), "expected out_dtype Float or that of x, Float, got Half"),
    (dict(status=torch.zeros(2).int()), r"expected status of shape \(num_rows\) = \[3\]"),
    (dict(plan=[GROUP]), "expected plan to be the four tensors of skip_plan, got 1"),
    (dict(format="int8", x=X.to(BF16), weight=Q), "expected weight_scale for format int8"),
    (dict(format="int8", weight=Q, weight_scale=SCALE), "x of dtype BFloat16 or Half"),
    (dict(weight_scale=SCALE), "expected weight_scale only for format int8"),
    (dict(format="int8", x=X.to(BF16), weight=Q, weight_scale=SCALE[:1]), r"weight_scale of shape"),
    (dict(format="q4_0", x=X.to(BF16)), "expected K a multiple of 32 for format q4_0, got 4"),
    (dict(format="q8_0", x=torch.ones(3, 32)), "expected x of dtype BFloat16 for format q8_0"),
    (dict(format="q8_0", x=torch.ones(3, 32).to(BF16), weight=W), r"= \[-1, -1, 34\], got"),
    (dict(format="q8_0", x=torch.ones(3, 32).to(BF16), weight=torch.ones(2, 5, 34)),
     "expected weight of dtype Byte, got Float"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), GEMM)
def test_gemm(change, message):
    arguments = dict(x=X, weight=W, group=GROUP) | change
    x, weight, group = (arguments.pop(k) for k in ("x", "weight", "group"))
    with pytest.raises((RuntimeError, ValueError), match=message) as caught:
        torch.ops.lmx.skip_gemm(x, weight, group, **arguments)
    assert "lmx::skip_gemm: " in str(caught.value)


@pytest.mark.parametrize("value", [2, -2, 2**31 - 1])
def test_a_group_out_of_range(value):
    group = torch.tensor([0, value, 1], dtype=torch.int32)
    message = rf"expected group\[1\] in \[-1, 2\), got {value}"
    for call in (
        lambda: lmx.layerskip.gemm(X, W, group),
        lambda: lmx.layerskip.swiglu(X, W, W, group),
        lambda: lmx.layerskip.plan(group, 2),
        lambda: lmx.layerskip.rmsnorm(X, torch.ones(2, 4), group),
        lambda: lmx.layerskip.layernorm(X, torch.ones(2, 4), None, group),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    wide = torch.tensor([0, 2**40, 1])
    with pytest.raises(ValueError, match=r"expected group\[1\] in \[-1, 2\), got 2147483647"):
        lmx.layerskip.gemm(X, W, wide)


def test_a_group_without_weights():
    with pytest.raises(
        ValueError, match=r"expected weights\[1\] with weights, for group 1 has rows"
    ):
        lmx.layerskip.gemm(X, [W[0], torch.empty(0)], GROUP)
    with pytest.raises(ValueError, match=r"expected ups\[1\] with weights, for group 1 has rows"):
        lmx.layerskip.swiglu(X, W, [W[0], torch.empty(0)], GROUP)


def test_a_plan_of_something_else():
    plan = lmx.layerskip.plan(GROUP, 2)
    with pytest.raises(RuntimeError, match=r"expected plan's perm of shape \(num_rows\) = \[2\]"):
        lmx.layerskip.gemm(X[:2], W, GROUP[:2], plan=plan)
    with pytest.raises(
        RuntimeError, match=r"expected plan's offsets of shape .* = \[4\], got \[3\]"
    ):
        lmx.layerskip.gemm(X, torch.ones(3, 5, 4), GROUP, plan=plan)
    for field, at, value, message in (
        ("perm", 1, 3, r"perm\[1\] = 3"),
        ("perm", 0, -1, r"perm\[0\] = -1"),
        ("offsets", 1, 9, r"offsets\[1\] = 9"),
        ("offsets", 2, 0, r"offsets\[2\] = 0"),
        ("offsets", 0, 1, r"offsets\[0\] = 1"),
    ):
        broken = lmx.layerskip.Plan(*(t.clone() for t in plan))
        getattr(broken, field)[at] = value
        with pytest.raises(ValueError, match="expected plan made by skip_plan .* got " + message):
            lmx.layerskip.gemm(X, W, GROUP, plan=broken)


def test_a_broken_plan_reaches_nothing(ops):
    """On a device nobody looks first: what is out of range is left out."""
    if ops.name == "cpu":
        pytest.skip("the CPU raises")
    plan = [t.clone() for t in ops("skip_plan", GROUP, 2, 16)]
    for tensor in (0, 1, 2):
        for value in (-5, 1000, 2**31 - 1):
            broken = [t.clone() for t in plan]
            broken[tensor].view(-1)[:2] = value
            ops("skip_gemm", X, W, GROUP, plan=broken)  # the harness fails a wild access


def test_out():
    x, w = torch.ones(3, 4), torch.ones(1, 4, 4)
    buffer = torch.zeros(3, 8)
    lmx.layerskip.gemm_out(x, w, buffer[:, 4:], residual=buffer[:, :4])  # side by side: allowed
    assert (buffer[:, 4:] == 4).all() and not buffer[:, :4].any()
    for out, residual, message in (
        (x, None, "expected out and x without common memory"),
        (w[0, :3], None, "expected out and weight without common memory"),
        (buffer[:, :4], buffer[:, 2:6], "expected out to be residual itself or to have no memory"),
        (torch.ones(2, 4), None, r"expected out of shape \(num_rows, N\) = \[3, 4\], got \[2, 4\]"),
        (torch.ones(4, 3).T, None, "expected out contiguous in the last dimension"),
        (torch.ones(3, 4).int(), None, "expected out of dtype Float, Half or BFloat16, got Int"),
    ):
        before = out.clone()
        with pytest.raises(RuntimeError, match="lmx::skip_gemm_out: " + message):
            lmx.layerskip.gemm_out(x, w, out, residual=residual)
        assert torch.equal(out, before)


def test_the_others():
    t = torch.ops.lmx
    i32 = torch.int32
    for call, message in (
        (lambda: t.skip_plan(GROUP, -1), r"skip_plan: expected num_groups in \[0, 2\^31\), got -1"),
        (lambda: t.skip_plan(GROUP, 2, 0), r"skip_plan: expected block_m in \[1, 2\^31\), got 0"),
        (lambda: t.skip_plan(GROUP, 2, 8, GROUP), r"expected alias of shape .num_groups. ="),
        (lambda: t.skip_plan(GROUP[None], 2), r"expected group of shape \(-1\) = \[-1\]"),
        (lambda: t.skip_rmsnorm(X, torch.ones(4)), r"expected gamma of shape \(-1, width\)"),
        (lambda: t.skip_rmsnorm(X, torch.ones(1, 5)), r"gamma of shape .*got \[1, 5\]"),
        (lambda: t.skip_rmsnorm(X, torch.ones(2, 4)), "expected group where there are 2 weight"),
        (lambda: t.skip_rmsnorm(X, torch.ones(1, 4), None, -1.0), "expected eps at least 0"),
        (lambda: t.skip_rmsnorm(X.T.contiguous().T, torch.ones(1, 4)), "x contiguous in the last"),
        (lambda: t.skip_rmsnorm(X.int(), torch.ones(1, 4)), "expected x of dtype Float, Half"),
        (lambda: t.skip_layernorm(X, torch.ones(1, 4), torch.ones(4)), "expected beta of shape"),
        (lambda: t.skip_layernorm(X, torch.ones(1, 4), torch.ones(1, 4).half()),
         "expected beta of dtype Float, got Half"),
        (lambda: t.skip_gather(X, GROUP, 4), r"expected n in \[0, 3\], the length of perm, got 4"),
        (lambda: t.skip_gather(X, GROUP.long(), 1), "expected perm of dtype Int, got Long"),
        (lambda: t.skip_gather(X, GROUP, 3), r"expected perm\[2\] in \[0, 3\), got -1"),
        (lambda: t.skip_scatter(X, GROUP[:2], X), "expected perm with at least 3 entries"),
        (lambda: t.skip_scatter(X, GROUP, X), "expected out and y without common memory"),
        (lambda: t.skip_scatter(X, GROUP, torch.ones(3, 5)), r"out of shape .* = \[-1, 4\]"),
        (lambda: t.skip_scatter(X, GROUP, torch.ones(3, 4).half()), "out of the dtype of y"),
        (lambda: t.skip_scatter(X, torch.tensor([0, 3, 1], dtype=i32), torch.ones(3, 4)),
         r"expected perm\[1\] in \[0, 3\), got 3"),
        (lambda: t.skip_swiglu(X, W, W[:, :4], GROUP), "expected gate and up of one shape"),
        (lambda: t.skip_swiglu(X, W, None, GROUP), "exactly one of up and ups, got neither"),
    ):  # fmt: skip
        with pytest.raises((RuntimeError, ValueError), match=message):
            call()


def test_what_is_empty_is_legal(ops):
    none = torch.full((3,), -1, dtype=torch.int32)
    assert ops("skip_gemm", X[:0], W, GROUP[:0]).shape == (0, 5)
    assert not ops("skip_gemm", X, W[:0], none).any()
    assert ops("skip_gemm", X, W[:, :0], GROUP).shape == (3, 0)
    bias = torch.arange(10.0).view(2, 5)
    out = ops("skip_gemm", X[:, :0], W[:, :, :0], GROUP, bias=bias)
    assert torch.equal(out, torch.cat((bias, torch.zeros(1, 5))))
    assert not ops("skip_gemm", X, W, none).any()
    assert not ops("skip_gemm", X, None, none, weights=[torch.empty(0)] * 2).any()
    packed = blocks("q4_1", 1, 5, 32)
    x = torch.ones(0, 32, dtype=BF16)
    assert ops("skip_gemm", x, packed, None, format="q4_1").shape == (0, 5)


def test_no_backward():
    x = X.clone().requires_grad_()
    for call in (
        lambda: lmx.layerskip.gemm(x, W, GROUP),
        lambda: lmx.layerskip.swiglu(x, W, W, GROUP),
        lambda: lmx.layerskip.rmsnorm(x, torch.ones(1, 4)),
        lambda: lmx.layerskip.layernorm(x, torch.ones(1, 4)),
        lambda: lmx.layerskip.gather(x, GROUP, 1),
    ):
        with pytest.raises(ValueError, match="has no backward, .* torch.inference_mode"):
            call()
        with torch.no_grad():
            call()
