"""A bad call: an exception without a status, a bit with one, the others untouched."""

import pytest
import torch
from helpers import Backend
from samples import samples_of

BAD_TREE, TOO_MANY, BAD_TOKEN, BAD_OFFSETS, BAD_PAGE, BAD_VALUE = 1, 2, 4, 8, 16, 64
CPU = Backend("cpu")


def i32(*values):
    return torch.tensor(values, dtype=torch.int32)


def tree_args(parents=(-1, 0, 0, 1), indptr=(0, 4), max_nodes=8, tokens=None, vocab_size=9):
    tokens = None if tokens is None else torch.tensor(tokens)
    return i32(*parents), i32(*indptr), max_nodes, tokens, vocab_size


TREES = {  # arguments -> message, bits of sequence 0
    "forward": (tree_args((-1, 2, 0, 1)), r"a parent in \[0, 1\), got parents\[1\] = 2", BAD_TREE),
    "itself": (tree_args((-1, 0, 2, 1)), r"got parents\[2\] = 2 of sequence 0", BAD_TREE),
    "below -1": (tree_args((-1, 0, -2, 1)), r"got parents\[2\] = -2", BAD_TREE),
    "second root": (tree_args((-1, 0, -1, 1)), r"got parents\[2\] = -1", BAD_TREE),
    "no root": (tree_args((0, 0, 0, 1)), r"a root with parent -1, got parents\[0\] = 0", BAD_TREE),
    "too many": (tree_args(max_nodes=3), r"at most max_nodes = 3 nodes, got 4", TOO_MANY),
    "token": (tree_args(tokens=(0, 8, 9, 1)), r"in \[0, 9\), got tokens\[2\] = 9", BAD_TOKEN),
    "negative": (tree_args(tokens=(0, -1, 2, 1)), r"got tokens\[1\] = -1", BAD_TOKEN),
    "start": (tree_args(indptr=(1, 4)), r"indptr that ascends from 0 to at most 4", BAD_OFFSETS),
    "falling": (tree_args(indptr=(0, -1)), r"got 0 to -1 of sequence 0", BAD_OFFSETS),
    "beyond": (tree_args(indptr=(0, 5)), r"got 0 to 5", BAD_OFFSETS),
}


@pytest.mark.parametrize("name", TREES)
def test_prepare(ops, name):
    args, message, bits = TREES[name]
    if ops.name == "cpu":
        with pytest.raises(ValueError, match=r"lmx::tree_prepare: expected .*" + message):
            ops("tree_prepare", *args)
    status = i32(0)
    depth, first, following, ancestors = ops("tree_prepare", *args, status)
    assert status.tolist() == [bits]
    assert not depth.any() and not ancestors.any()
    assert (first == -1).all() and (following == -1).all()


def test_a_bad_sequence_leaves_the_others_alone(ops):
    parents = i32(-1, 0, -1, 5, -1, 0, 1)
    for indptr, bad in ((i32(0, 2, 4, 7), [0, BAD_TREE, 0]), (i32(0, 2, 1, 7), [0, 8, 8])):
        status = torch.zeros(3, dtype=torch.int32)
        depth, *_ = ops("tree_prepare", parents, indptr, 8, None, 0, status)
        assert status.tolist() == bad
        assert depth.tolist() == ([0, 1, 0, 0, 0, 1, 2] if bad[2] == 0 else [0, 1, 0, 0, 0, 0, 0])


def test_a_status_from_before_makes_a_sequence_empty(ops):
    status = i32(BAD_PAGE)
    depth, *_ = ops("tree_prepare", *tree_args(), status)
    assert status.tolist() == [BAD_PAGE] and not depth.any()


def walk_args(**changes):
    first, following = i32(1, 3, -1, -1), i32(-1, 2, -1, -1)
    args = {"tokens": torch.tensor([9, 1, 2, 1]), "indptr": i32(0, 4), "first": first}
    return list((args | {"following": following} | changes).values())


LINKS = {
    "circle": {"following": i32(-1, 2, 2, -1)},
    "below itself": {"first": i32(1, 1, -1, -1)},
    "upwards": {"first": i32(1, 0, -1, -1)},
    "outside": {"first": i32(4, -1, -1, -1)},
    "below -1": {"first": i32(-2, -1, -1, -1)},
}


@pytest.mark.parametrize("name", LINKS)
def test_links_that_are_no_tree(ops, name):
    args = walk_args(**LINKS[name])
    target, probs = torch.tensor([1, 3, 3, 3]), torch.full((4, 9), 1 / 9)
    target[0] = 3 if name == "circle" else 1
    sampled = (probs, torch.tensor([0.999, 0.99, 0, 0]), torch.zeros(1), 3)
    if name in ("below itself", "upwards"):
        sampled = (probs, torch.tensor([0.0, 0.99, 0, 0]), torch.zeros(1), 3)
    for op, more in (("greedy", (target, 3)), ("target", sampled)):
        name = f"tree_verify_{op}"
        if ops.name == "cpu":
            with pytest.raises(ValueError, match=f"lmx::{name}: expected first_child and next"):
                ops(name, *args, *more)
        status = i32(0)
        thresholds = (1.0, 1.0) if op == "target" else ()
        path, length, out = ops(name, *args, *more, *thresholds, status)
        assert status.tolist() == [BAD_TREE] and length.tolist() == [0]
        assert (path == -1).all() and (out == -1).all()


def test_probabilities_and_uniforms(ops):
    sample = next(s for s in samples_of("tree_verify_target") if s.name == "odd").fresh()
    path, length, out = ops("tree_verify_target", *sample.args)
    status = sample.args[10].tolist()
    assert status == [BAD_TOKEN, BAD_VALUE, BAD_VALUE, 0, BAD_VALUE, 0, 0, BAD_VALUE]
    for b, bits in enumerate(status):
        if bits == BAD_VALUE:  # the walk ends where it is
            assert path[b].tolist() == [0, -1, -1, -1] and (out[b] == -1).all() and length[b] == 0
    assert path[0].tolist() == [0, -1, -1, -1] and (out[0] == -1).all()  # nothing to draw from
    assert out[5, 0] in (1, 2) and length[5] == 1 and length[6] == 1  # all mass is on children
    if ops.name == "cpu":
        for b, message in ((0, "a positive weight where the walk ends"), (1, r"finite target_pro")):
            nodes = slice(4 * b, 4 * b + 4)
            rows = [t[nodes] for t in sample.args[2:6]]
            args = (sample.args[0][nodes], i32(0, 4), *rows, sample.args[6][b : b + 1], 3)
            with pytest.raises(ValueError, match=message):
                ops("tree_verify_target", *args)


def test_greedy_without_a_next_token():
    args = walk_args()
    with pytest.raises(ValueError, match="target_ids that are tokens where the walk comes by"):
        CPU("tree_verify_greedy", *args, torch.full((4,), -1), 3)


COMMITS = {  # argument, index, value -> message, bits
    "page 0": ("table", (0, 0, 1), 0, r"a page in \[1, 9\), got block_table\[1\] = 0", BAD_PAGE),
    "page": ("table", (0, 0, 1), 9, r"got block_table\[1\] = 9 of sequence 0", BAD_PAGE),
    "slots": ("slots", (0, 0), 14, r"num_slots in \[0, 16\) for entry 2", TOO_MANY),
    "negative": ("slots", (0, 0), -1, r"got num_slots\[0\] = -1", TOO_MANY),
    "path": ("path", (0, 2), 4, r"ascending nodes from 0, got path\[2\] = 4", BAD_TREE),
    "order": ("path", (0, 2), 1, r"got path\[2\] = 1", BAD_TREE),
    "root": ("path", (0, 0), 1, r"got path\[0\] = 1", BAD_TREE),
    "length": ("length", (0,), 3, r"accept_length in \[-1, 3\), got accept_length\[0\] = 3", 64),
    "below -1": ("length", (0,), -2, r"got accept_length\[0\] = -2", BAD_VALUE),
}


@pytest.mark.parametrize("name", COMMITS)
def test_commit(ops, name):
    which, index, value, message, bits = COMMITS[name]
    tensors = {"path": i32(0, 1, 3)[None], "length": i32(2), "indptr": i32(0, 4)}
    tensors |= {"table": i32(5, 3)[None, None], "slots": i32(6)[None]}
    good = ops("tree_commit", *tensors.values(), 4, 8, 9)
    assert good.tolist() == [[46, 47, -1, 24]]
    tensors[which][index] = value
    if ops.name == "cpu":
        with pytest.raises(ValueError, match=r"lmx::tree_commit: expected .*" + message):
            ops("tree_commit", *tensors.values(), 4, 8, 9)
    status = i32(0)
    mapping = ops("tree_commit", *tensors.values(), 4, 8, 9, status)
    assert status.tolist() == [bits] and (mapping == -1).all()


def test_expand_and_update():
    matrix = torch.zeros(1, 5, 2, dtype=torch.int32)
    parents, ranks = i32(-1, 0, 1), i32(0, 1, 0)
    root = torch.tensor([3])

    def expand(message, **changes):
        given = {"matrix": matrix, "roots": root, "parents": parents, "ranks": ranks}
        given |= {"sizes": None, "ids": None}
        with pytest.raises(ValueError, match=message):
            CPU("tree_recycle_expand", *(given | changes).values())

    expand(r"a root in \[0, 5\), got roots\[0\] = 5", roots=torch.tensor([5]))
    expand(r"no|a tree of at most 32 levels with ranks in \[0, 2\)", ranks=i32(0, 2, 0))
    expand(r"got template_parent\[2\] = 2", parents=i32(-1, 0, 2))
    expand(
        r"got template_parent\[33\] = 32", parents=torch.arange(-1, 33).int(), ranks=i32(*[0] * 34)
    )
    expand(r"a size in \[0, 3\], got sizes\[0\] = 4", sizes=i32(4))
    expand(r"a matrix id in \[0, 1\), got -1", ids=i32(-1))
    expand("a matrix of candidates in", matrix=torch.full_like(matrix, 5))

    def update(message, **changes):
        given = {"matrix": matrix.clone(), "tokens": torch.tensor([1, 2])}
        given |= {"logits": torch.zeros(2, 5), "indptr": i32(0, 2), "path": None, "ids": None}
        with pytest.raises(ValueError, match=message):
            CPU("tree_recycle_update", *(given | changes).values())

    update(r"a token in \[0, 5\), got tokens\[1\] = 5", tokens=torch.tensor([1, 5]))
    update(r"a matrix id in \[0, 1\), got 1", ids=i32(1))


SHAPES = {
    "tree_prepare": [
        ({0: torch.zeros(3)}, "parents of dtype Int, got Float"),
        ({1: torch.zeros(0, dtype=torch.int32)}, "indptr of shape"),
        ({2: 1025}, r"max_nodes in \[0, 1024\], got 1025"),
        ({5: torch.zeros(9, dtype=torch.int32)}, r"status of shape \(num_seqs\)"),
    ],
    "tree_verify_greedy": [
        ({4: torch.zeros(3, dtype=torch.int64)}, r"target_ids of shape \(num_rows\)"),
        ({5: 1024}, r"max_depth in \[0, 1023\], got 1024"),
        ({2: torch.zeros(9)}, "first_child of shape"),
    ],
    "tree_verify_target": [
        ({4: torch.zeros(2, 5)}, r"target_probs of shape \(rows, -1\)"),
        ({6: torch.zeros(99)}, r"u_final of shape \(num_seqs\)"),
        ({8: float("nan")}, "thresholds >= 0, got threshold_single nan"),
        ({9: -0.5}, "thresholds >= 0"),
    ],
    "tree_commit": [
        ({6: 0}, r"page_size in \[1, "),
        ({3: torch.zeros(1, 1, 1, dtype=torch.int32)}, "block_table of shape"),
        ({4: torch.zeros(5, 9, dtype=torch.int32)}, "num_slots of shape"),
    ],
    "tree_recycle_expand": [
        ({0: torch.zeros(1, 5, 17, dtype=torch.int32)}, r"k in \[1, 16\], got 17"),
        ({0: torch.zeros(2, 5, 8, dtype=torch.int32)}, "one matrix, or one per sequence = 3"),
        ({3: torch.zeros(2, dtype=torch.int32)}, r"template_rank of shape \(num_nodes\)"),
        ({2: torch.zeros(0, dtype=torch.int32)}, r"nodes of the template in \[1, 1024\], got 0"),
    ],
    "tree_recycle_update": [
        ({2: torch.zeros(30, 39)}, "logits of shape"),
        ({2: torch.zeros(30, 40, dtype=torch.float64)}, "logits of dtype Float, got Double"),
        ({4: torch.zeros(1, 3, dtype=torch.int32)}, "path of shape"),
    ],
}


@pytest.mark.parametrize("op", SHAPES)
def test_shapes_dtypes_and_numbers(op):
    for changes, message in SHAPES[op]:
        args = list(samples_of(op)[0].fresh().args)
        defaults = {"tree_prepare": [None, 0, None], "tree_verify_target": [1.0, 1.0, None]}
        args += defaults.get(op, []) if len(args) in (3, 8) else []
        for at, value in changes.items():
            args[at] = value
        with pytest.raises(RuntimeError, match=f"lmx::{op}: expected {message}"):
            CPU(op, *args)
