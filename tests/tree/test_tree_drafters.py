"""Drafters on texts whose next tokens are known."""

import pytest
import torch

from lmx import tree
from lmx.protocols import Step

V = 20


def step_of(pending, base_pos, rows=None, max_nodes=81):
    rows = tuple(range(len(pending))) if rows is None else rows
    return Step(
        rows=rows,
        pending=torch.tensor(pending),
        base_pos=torch.tensor(base_pos, dtype=torch.int32),
        seeds=(0,) * len(rows),
        max_nodes=max_nodes,
    )


def verified(drafter, step, follows):
    """Verify a proposal for texts in which `follows(token)` comes after a token; observe it."""
    t = drafter.propose(step)
    width = int(t.indptr.diff().max())
    depth, first, following, _ = tree.prepare(t.parents, t.indptr, width)
    target = torch.tensor([follows(token) for token in t.tokens.tolist()])
    walk = (t.tokens, t.indptr, first, following, target, int(depth.max()))
    path, length, out = tree.verify_greedy(*walk)
    logits = torch.zeros(len(target), V).scatter_(1, target[:, None], 9.0)
    logits += torch.linspace(0, -1, V)
    drafter.observe(step, t, logits, path, length, {})
    return t, length.tolist(), [row[: n + 1].tolist() for row, n in zip(out, length, strict=True)]


def emit(drafter, prompts, follows, steps, max_nodes=81):
    """Run a few steps; returns the texts and how many tokens each step emitted."""
    texts = [list(p) for p in prompts]
    for row, prompt in enumerate(prompts):
        drafter.observe_prompt(row, 0, torch.tensor(prompt), {})
    counts = []
    for _ in range(steps):
        step = step_of([t[-1] for t in texts], [len(t) - 1 for t in texts], max_nodes=max_nodes)
        _, _, out = verified(drafter, step, follows)
        for text, tokens in zip(texts, out, strict=True):
            text += tokens
        counts.append([len(tokens) for tokens in out])
    return texts, counts


def circle(token):
    return (token + 3) % V


def drafters():
    costs = tree.StepCosts((1, 8, 81), (1.0, 1.5, 9.0))
    small = tree.likeliest(16)
    return {
        "recycle": tree.TokenRecycling(V),
        "recycle-4": tree.TokenRecycling(V, template=tree.likeliest(5)),
        "recycle-auto": tree.TokenRecycling(V, template=small, sizer=tree.Sizer(small, costs)),
        "recycle-zeros": tree.TokenRecycling(V, init="zeros"),
        "recycle-accepted": tree.TokenRecycling(V, conflict="accepted"),
        "recycle-shared": tree.TokenRecycling(V, shared=True),
        "lookup": tree.PromptLookup(),
        "lookup-first": tree.PromptLookup(match="first"),
        "lookup-auto": tree.PromptLookup(sizer=tree.Sizer(tree.from_chain(10), costs)),
        "merged": tree.Merged([tree.TokenRecycling(V), tree.PromptLookup()]),
    }


@pytest.mark.parametrize("name", drafters())
def test_the_text_is_the_models_and_steps_are_fewer(name):
    drafter = drafters()[name]
    texts, counts = emit(drafter, [[0], [1, 2, 5]], circle, 30)
    for text, start in zip(texts, (0, 5), strict=True):
        at = text.index(start)
        assert all(b == circle(a) for a, b in zip(text[at:], text[at + 1 :], strict=False))
    assert all(n > 1 for n in counts[-1])


@pytest.mark.parametrize("name", drafters())
def test_a_new_request_starts_anew(name):
    """The same proposals as from a drafter that has seen nothing; shared matrices apart."""
    if name == "recycle-shared":
        pytest.skip("shared=True gives this up")
    used, fresh = drafters()[name], drafters()[name]
    emit(used, [[0], [1]], circle, 20)
    for drafter in (used, fresh):
        drafter.observe_prompt(1, 0, torch.tensor([3, 4, 3]), {})
    a, b = (d.propose(step_of([3], [2], rows=(1,))) for d in (used, fresh))
    assert torch.equal(a.tokens, b.tokens) and torch.equal(a.parents, b.parents)


def test_trees_keep_to_the_limit():
    for name, drafter in drafters().items():
        emit(drafter, [[0, 3, 6, 9, 12, 15, 18, 1, 4, 7, 10]], circle, 30)
        for most in (1, 2, 7):
            t = drafter.propose(step_of([0], [41], max_nodes=most))
            assert 1 <= t.tokens.numel() <= most, name


def test_recycling_learns_from_every_node():
    drafter = tree.TokenRecycling(V, template=tree.likeliest(5))
    t, _, _ = verified(drafter, step_of([0], [0]), circle)
    assert t.tokens.tolist() == [0]  # nothing known yet
    verified(drafter, step_of([3], [1]), circle)
    t, length, out = verified(drafter, step_of([0], [2]), circle)
    assert t.tokens.tolist()[:3] == [0, 3, 6] and length == [2] and out == [[3, 6, 9]]
    known = drafter.matrix(0)
    assert known[0, 0] == 3 and known[3, 0] == 6 and (known[5] == -1).all()
    assert (known[6, :2] == torch.tensor([9, 0])).all()  # by logit, then by id


def test_recycling_is_per_request_unless_shared():
    for shared, expected in ((False, 1), (True, 5)):
        drafter = tree.TokenRecycling(V, template=tree.likeliest(5), shared=shared)
        for _ in range(3):
            emit(drafter, [[0]], circle, 10)
        drafter.observe_prompt(1, 0, torch.tensor([0]), {})
        t = drafter.propose(step_of([0], [0], rows=(1,)))
        assert t.tokens.numel() == expected


def test_a_saved_matrix_is_a_hot_start(tmp_path):
    drafter = tree.TokenRecycling(V)
    emit(drafter, [[0]], circle, 20)
    file = tmp_path / "matrix.safetensors"
    drafter.save(file)
    hot = tree.load_matrix(file, V)
    assert torch.equal(hot, drafter.matrix(0))
    warm = tree.TokenRecycling(V, hot=hot)
    _, counts = emit(warm, [[0], [3]], circle, 2)
    assert counts[0] == [7, 7]
    warm.matrix(0).fill_(-1)  # a request's own copy
    assert torch.equal(hot, tree.load_matrix(file, V))
    assert counts[0] == emit(warm, [[0], [3]], circle, 1)[1][0]
    with pytest.raises(
        ValueError, match=r"matrix\.safetensors: expected a matrix of int32 \[21, 8"
    ):
        tree.load_matrix(file, V + 1)
    with pytest.raises(ValueError, match=r"int32 \[21, 8\] for this vocabulary, got .*\[20, 8\]"):
        tree.TokenRecycling(V + 1, hot=hot)
    with pytest.raises(ValueError, match=r"expected candidates in \[-1, 20\)"):
        tree.TokenRecycling(V, hot=torch.full_like(hot, V))
    other = tmp_path / "other.safetensors"
    from safetensors.torch import save_file

    save_file({"matrix": hot}, other)
    with pytest.raises(ValueError, match="other.safetensors: not a matrix of recycled tokens"):
        tree.load_matrix(other, V)


@pytest.mark.parametrize(
    "options", [{"k": 0}, {"k": 17}, {"k": 4}, {"init": "ones"}, {"conflict": "first"}]
)
def test_recycling_options_out_of_range(options):
    with pytest.raises(ValueError, match="TokenRecycling: "):
        tree.TokenRecycling(V, **options)


def chain_of(drafter, prompt):
    drafter.observe_prompt(0, 0, torch.tensor(prompt), {})
    return drafter.propose(step_of(prompt[-1:], [len(prompt) - 1])).tokens.tolist()[1:]


def test_lookup_takes_the_longest_run_and_the_last_occurrence():
    text = [1, 2, 3, 4, 9, 2, 3, 5, 9, 1, 2, 3]
    assert chain_of(tree.PromptLookup(), text) == [
        4,
        9,
        2,
        3,
        5,
        9,
        1,
        2,
        3,
    ]  # 1 2 3 goes before 2 3
    assert chain_of(tree.PromptLookup(max_ngram=2), text) == [5, 9, 1, 2, 3]
    assert chain_of(tree.PromptLookup(max_ngram=2, match="first"), text)[:2] == [4, 9]
    assert chain_of(tree.PromptLookup(num_draft=2), text) == [4, 9]
    assert chain_of(tree.PromptLookup(), [1, 2, 3, 4]) == []
    assert chain_of(tree.PromptLookup(min_ngram=2), [7, 1, 7]) == []
    assert chain_of(tree.PromptLookup(), [7]) == []
    assert chain_of(tree.PromptLookup(), [7, 7, 7, 7]) == [7]


def test_lookup_in_parts_is_lookup_at_once():
    text = torch.randint(6, (200,)).tolist()
    whole = chain_of(tree.PromptLookup(), text)
    parts = tree.PromptLookup()
    for start in range(0, 200, 33):
        parts.observe_prompt(0, start, torch.tensor(text[start : start + 33]), {})
    assert parts.propose(step_of(text[-1:], [199])).tokens.tolist()[1:] == whole


@pytest.mark.parametrize("options", [{"min_ngram": 0}, {"max_ngram": 0}, {"num_draft": 0}])
def test_lookup_options_out_of_range(options):
    with pytest.raises(ValueError, match="PromptLookup: expected 1 <= min_ngram"):
        tree.PromptLookup(**options)


def test_merged_needs_two():
    with pytest.raises(ValueError, match="Merged: expected two or more"):
        tree.Merged([tree.PromptLookup()])
