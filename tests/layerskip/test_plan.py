"""``skip_plan``, ``skip_gather`` and ``skip_scatter``: integers and bytes, so equal or wrong."""

import pytest
import torch
from samples import samples_of

from lmx.layerskip import reference


def test_samples(ops):
    for s in samples_of("skip_plan"):
        ours, exact = ops("skip_plan", *s.args), reference.plan(*s.args)
        assert all(map(torch.equal, ours, exact)), s.name
    for s in samples_of("skip_gather"):
        assert torch.equal(ops("skip_gather", *s.args), reference.gather(*s.args)), s.name
    for s in samples_of("skip_scatter"):
        y, perm, out = s.args
        ours, exact = out.clone(), out.clone()
        ops("skip_scatter", y, perm, ours)
        reference.scatter(y, perm, exact)
        assert torch.equal(ours, exact), s.name


def check(plan, group, num_groups: int, block_m: int) -> None:
    """What a plan promises, without the reference."""
    perm, offsets, tiles, info = plan
    num_rows = len(group)
    assert sorted(perm.tolist()) == list(range(num_rows))
    group = torch.where((group < 0) | (group >= num_groups), -1, group)
    assert offsets[0] == 0 and (offsets.diff() >= 0).all()
    for g in range(num_groups):
        mine = perm[offsets[g] : offsets[g + 1]]
        assert (group[mine.long()] == g).all() and (mine.diff() > 0).all()
    rest = perm[offsets[-1] :]
    assert (group[rest.long()] == -1).all() and (rest.diff() > 0).all()
    used = int(info[2])
    assert used <= len(tiles) == num_rows // block_m + min(num_groups, num_rows)
    covered = []
    for g, first, count in tiles[:used].tolist():
        assert 1 <= count <= block_m and offsets[g] <= first and first + count <= offsets[g + 1]
        covered += range(first, first + count)
    assert covered == list(range(int(offsets[-1])))
    assert (tiles[used:] == torch.tensor([-1, 0, 0])).all()
    assert info[0] == offsets[-1] and info[1] == (offsets.diff() > 0).sum()


@pytest.mark.parametrize("seed", range(10))
def test_fuzz(ops, seed):
    """10,000 group vectors, some values out of range."""
    torch.manual_seed(seed)
    for _ in range(30 if ops.name == "simt" else 1000):
        num_rows, num_groups = (int(torch.randint(0, n, ())) for n in (40, 12))
        block_m = int(torch.randint(1, 20, ()))
        group = torch.randint(-2, num_groups + 2, (num_rows,), dtype=torch.int32)
        status = torch.zeros(num_rows, dtype=torch.int32)
        plan = ops("skip_plan", group, num_groups, block_m, None, status)
        check(plan, group, num_groups, block_m)
        bad = (group < -1) | (group >= num_groups)
        assert plan[3][3] == bad.sum() and torch.equal(status == 128, bad)


def test_bad_aliases_are_isolated(ops):
    group = torch.tensor([0, 1, 2, 1], dtype=torch.int32)
    status = torch.zeros(4, dtype=torch.int32)
    alias = torch.tensor([0, 9, 0], dtype=torch.int32)
    perm, offsets, _, info = ops("skip_plan", group, 3, 8, alias, status)
    assert perm.tolist() == [0, 2, 1, 3] and offsets.tolist() == [0, 2, 2, 2]
    assert info[3] == 2 and status.tolist() == [0, 128, 0, 128]


def test_bad_numbers_are_isolated(ops):
    x = torch.arange(12.0).view(4, 3)
    perm, status = torch.tensor([3, 4, -1, 0], dtype=torch.int32), torch.zeros(4, dtype=torch.int32)
    out = ops("skip_gather", x, perm, 4, status)
    assert torch.equal(out, torch.stack((x[3], x[0] * 0, x[0] * 0, x[0])))
    assert status.tolist() == [0, 128, 128, 0]
    back, status = torch.full((4, 3), -1.0), torch.zeros(4, dtype=torch.int32)
    ops("skip_scatter", x, perm, back, status)
    assert torch.equal(back, torch.stack((x[3], x[0] * 0 - 1, x[0] * 0 - 1, x[0])))
    assert status.tolist() == [0, 128, 128, 0]
