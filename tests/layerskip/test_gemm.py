"""``skip_gemm`` and ``skip_swiglu`` against sums in float64, and what must not change a bit."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from helpers import BACKENDS, Backend, same_bits, some
from layerskip_bounds import assert_within, gemm_bound
from layerskip_samples import mix, normal, weights
from samples import DTYPES, samples_of

from lmx.layerskip import reference

SHAPES = ((1, 1), (3, 5), (64, 64), (65, 33), (257, 129), (512, 1024))
MIXES = ("one", "each", "skewed", "half", "none", "random")


def call(ops, x, w, group, **options):
    return ops("skip_gemm", x, w, group, **options)


def test_every_sample_is_within_the_bound(ops):
    for s in samples_of("skip_gemm"):
        x, w, group = s.args
        options = dict(s.kwargs)
        w = options.pop("weights", w)
        dtype = options.pop("out_dtype", x.dtype)
        options.pop("plan", None)
        exact = reference.gemm(x, w, group, **options)
        bound = gemm_bound(exact, x, w, group, dtype, **options)
        assert_within(ops("skip_gemm", *s.args, **s.kwargs), exact, bound, s.name)


@pytest.mark.parametrize("num_rows", [0, 1, 2, 7, 8, 9, 16, 17, 33, 64, 133])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sizes(ops, num_rows, dtype):
    """Numbers of rows around every tile, against every shape; options and mixes in turn."""
    shapes = SHAPES[::2] if ops.name == "simt" else SHAPES
    if ops.name == "simt" and num_rows > 33:
        shapes = shapes[:3]
    for i, (n, k) in enumerate(shapes):
        num_groups = (1, 3, 8)[(i + num_rows) % 3]
        x, w = normal(num_rows, k, dtype=dtype), weights(num_groups, n, k, dtype=dtype)
        group = mix(MIXES[(i + num_rows) % len(MIXES)], num_rows, num_groups)
        options = {}
        if i % 2:
            options["bias"] = normal(num_groups, n, dtype=dtype)
        if i % 3:
            options["residual"] = normal(num_rows, n, dtype=dtype)
        if i % 4 == 3:
            options["row_scale"] = torch.rand(num_rows)
        ours = call(ops, x, w, group, **options)
        exact = reference.gemm(x, w, group, **options)
        bound = gemm_bound(exact, x, w, group, dtype, **options)
        assert_within(ours, exact, bound, f"{num_rows} rows, {n} x {k}, {num_groups} groups")


def test_swiglu(ops):
    for s in samples_of("skip_swiglu"):
        x, gate, up, group = s.args
        options = dict(s.kwargs)
        gate, up = options.pop("gates", gate), options.pop("ups", up)
        ours = ops("skip_swiglu", *s.args, **s.kwargs)
        exact = reference.swiglu(x, gate, up, group, **options)
        opened = gemm_of(x, gate, group, "gate_scale", options)
        other = gemm_of(x, up, group, "up_scale", options)
        # The product of two factors that are each within their own bound.
        error = 1.2 * opened[1] * (other[0].abs() + other[1]) + opened[0].abs() * other[1]
        error = error + 2.0**-20 * other[0].abs() + 2.0**-7 * exact.abs()
        if x.dtype != torch.bfloat16:
            error = error - (2.0**-7 - 2.0**-10) * exact.abs()
        assert_within(ours, exact, error + 1e-7, s.name)


def gemm_of(x, weight, group, scale_name, options):
    plain = {"format": options.get("format", "dense"), "weight_scale": options.get(scale_name)}
    exact = reference.gemm(x, weight, group, **plain)
    return exact, gemm_bound(exact, x, weight, group, torch.float32, **plain)


def test_skipped_rows(ops):
    for dtype in DTYPES:
        x, w = normal(6, 40, dtype=dtype), weights(2, 33, 40, dtype=dtype)
        residual = normal(6, 33, dtype=dtype)
        residual[1, :3] = torch.tensor([torch.nan, -0.0, torch.inf])
        group = torch.tensor([0, -1, 1, -1, -1, 0], dtype=torch.int32)
        skipped = group < 0
        out = call(ops, x, w, group, residual=residual)
        assert same_bits(out[skipped], residual[skipped])
        zero = call(ops, x, w, group, residual=residual, skipped="zero")
        assert same_bits(zero[skipped], torch.zeros(3, 33, dtype=dtype))
        assert same_bits(call(ops, x, w, group)[skipped], torch.zeros(3, 33, dtype=dtype))
        kept = torch.full((6, 33), torch.nan, dtype=dtype)
        ops("skip_gemm_out", x, kept, w, group, residual=residual, skipped="keep")
        assert kept[skipped].isnan().all() and same_bits(kept[~skipped], out[~skipped])
        wide = torch.empty(6, 33)
        ops("skip_gemm_out", x, wide, w, group, residual=residual)
        exact = residual[skipped].float()
        torch.testing.assert_close(wide[skipped], exact, rtol=0, atol=0, equal_nan=True)


def test_what_is_not_active_is_not_read(ops):
    """NaN in skipped rows and unused groups, an empty weight for an unused group."""
    for num_rows in (3, 40):
        x, w = normal(num_rows, 50), weights(4, 33, 50)
        group = torch.tensor([0, -1, 2] * num_rows, dtype=torch.int32)[:num_rows]
        clean = call(ops, x, w, group)
        x[group < 0] = torch.nan
        w[[1, 3]] = torch.inf
        assert same_bits(call(ops, x, w, group), clean)
        several = [w[0].clone(), torch.empty(0), w[2].clone(), torch.empty(0)]
        assert same_bits(call(ops, x, None, group, weights=several), clean)
        scale = torch.where(group < 0, torch.nan, 1.0)
        assert same_bits(call(ops, x, w, group, row_scale=scale), clean)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_row_is_the_same_in_any_batch(ops, threads, dtype):
    """Alone, among 2 to 512 rows, at any place, among any groups, on 1 or 2 threads."""
    sizes = (2, 3, 5, 8, 17, 64, 65) if ops.name == "simt" else (2, 3, 4, 7, 16, 49, 64, 133, 512)
    for n, k in ((33, 700), (70, 65)):
        x, w = normal(max(sizes), k, dtype=dtype), weights(3, n, k, dtype=dtype)
        group = torch.randint(0, 3, (max(sizes),), dtype=torch.int32)
        picks = [0, 1, len(x) // 2, len(x) - 1]
        threads(1)
        alone = {r: call(ops, x[r : r + 1].clone(), w, group[r : r + 1]) for r in picks}
        for size, num_threads in itertools.product(sizes, (1, 2)):
            threads(num_threads)
            for r in picks:
                others = torch.randperm(len(x))[:size]
                place = int(torch.randint(size, ()))
                others[place] = r
                out = call(ops, x[others], w, group[others])
                assert same_bits(out[place : place + 1], alone[r]), (size, num_threads, n)
                if num_threads == 1:
                    break
        one_group = call(ops, x, w[:1].contiguous(), None)
        first = call(ops, x[:1].clone(), w, torch.zeros(1, dtype=torch.int32))
        assert same_bits(one_group[:1], first)


def test_in_place_is_the_same(ops):
    for dtype in DTYPES:
        x, w = normal(9, 70, dtype=dtype), weights(2, 40, 70, dtype=dtype)
        group, residual = mix("random", 9, 2), normal(9, 40, dtype=dtype)
        scale = torch.rand(9)
        fresh = call(ops, x, w, group, residual=residual, row_scale=scale)
        stream = residual.clone()
        args = (x, stream, w, group)
        if ops.device == "cpu":
            ops("skip_gemm_out", *args, residual=stream, row_scale=scale)
        else:  # the same tensor twice must stay one on the other device
            stream = stream.to(ops.device)
            moved = [t.to(ops.device) for t in (x, w, group, scale)]
            ops.ops.skip_gemm_out(
                moved[0], stream, moved[1], moved[2], residual=stream, row_scale=moved[3]
            )
            stream = stream.cpu()
        assert same_bits(stream, fresh)


def test_beside_what_torch_has(ops):
    """grouped_mm on sorted rows, and the way by hand: gather, linear, scatter."""
    x, w = normal(48, 64, dtype=torch.bfloat16), weights(4, 32, 64, dtype=torch.bfloat16)
    group = mix("random", 48, 4)
    ours = call(ops, x, w, group, out_dtype=torch.float32)
    plan = ops("skip_plan", group, 4)
    num_active = int(plan[3][0])
    packed = ops("skip_gather", x, plan[0], num_active)
    ends = plan[1][1:]
    grouped = F.grouped_mm(packed, w.transpose(1, 2), offs=ends)
    parts = [
        F.linear(packed[int(a) : int(b)].float(), w[g].float())
        for g, (a, b) in enumerate(itertools.pairwise(plan[1]))
    ]
    for theirs, tolerance in ((grouped.float(), 2e-2), (torch.cat(parts), 1e-5)):
        back = torch.zeros(48, 32)
        ops("skip_scatter", theirs.contiguous(), plan[0], back)
        torch.testing.assert_close(ours, back, rtol=tolerance, atol=tolerance)


def test_a_plan_serves_many_calls(ops):
    for sample in some(ops, samples_of("skip_gemm")):
        x, w, group = sample.args
        if group is None or w is None or "plan" in sample.kwargs:
            continue
        plan = list(ops("skip_plan", group, w.shape[0], 16))
        planned = ops("skip_gemm", x, w, group, plan=plan, **sample.kwargs)
        assert same_bits(planned, ops("skip_gemm", *sample.args, **sample.kwargs)), sample.name


def test_tied_layers_form_one_group(ops):
    x, w = normal(12, 40), weights(4, 33, 40)
    group = mix("each", 12, 4)
    alias = torch.tensor([0, 1, 0, 1], dtype=torch.int32)
    plan = list(ops("skip_plan", group, 4, 16, alias))
    assert int(plan[3][1]) == 2
    tied = call(ops, x, w, group, plan=plan)
    assert same_bits(tied, call(ops, x, w, alias[group.long()]))


def test_a_bad_row_is_isolated(ops):
    x, w = normal(5, 40), weights(2, 33, 40)
    good = torch.tensor([0, -1, 1, -1, 0], dtype=torch.int32)
    bad = torch.tensor([0, 2, 1, -7, 0], dtype=torch.int32)
    status = torch.zeros(5, dtype=torch.int32)
    out = call(ops, x, w, bad, status=status)
    assert same_bits(out, call(ops, x, w, good)) and status.tolist() == [0, 128, 0, 128, 0]
    several, status = [w[0].clone(), torch.empty(0)], torch.zeros(5, dtype=torch.int32)
    out = call(ops, x, None, good, weights=several, status=status)
    assert status.tolist() == [0, 0, 128, 0, 0] and not out[2].any()
    assert same_bits(out[[0, 4]], call(ops, x, w, good)[[0, 4]])


def test_int64_groups_on_a_cpu():
    cpu, x, w = Backend("cpu"), normal(4, 8), weights(2, 3, 8)
    group = torch.tensor([1, 0, -1, 1])
    assert same_bits(call(cpu, x, w, group), call(cpu, x, w, group.int()))


@pytest.mark.skipif("simt" not in BACKENDS, reason="the SIMT harness was not built")
def test_many_groups_on_the_harness():
    """More groups than one launch takes."""
    x, w = normal(150, 16), weights(150, 8, 16)
    group = torch.randperm(150).int()
    ours = call(Backend("simt"), x, w, group)
    torch.testing.assert_close(ours, call(Backend("cpu"), x, w, group), rtol=1e-5, atol=1e-5)
