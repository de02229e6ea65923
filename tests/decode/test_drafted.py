"""With a drafter the text is the one without: every drafter, every option, any batch."""

import logging

import pytest
import torch
from decode.toys import byte_grammar, drain, random_prompts, says, table_model, tiny

import lmx
from lmx import tree
from lmx.decode import EarlyExit, Sampling
from lmx.grammar import Grammar
from lmx.protocols import DraftTree, NoDrafter

VOCAB = 199
NAMES = ["recycle", "recycle:4", "recycle:16", "lookup", "lookup:3", "early-exit:1"]
NAMES += ["recycle:8+lookup:4"]
# Prompts that repeat themselves, so that there is something to look up; one longer than a chunk.
PROMPTS = [[5, 6, 7, 5, 6, 7, 5, 6], *random_prompts(2, VOCAB), [p % 50 for p in range(530)]]


@pytest.fixture(scope="module")
def plain():
    return lmx.generate(tiny(), PROMPTS, max_new_tokens=40)


class Guess:
    """Drafts the model's own continuation, and wrong siblings around it."""

    taps = ()
    name = "guess"

    def __init__(self, texts: list[list[int]], width: int = 3, depth: int = 4) -> None:
        self.texts, self.width, self.depth = texts, width, depth
        self.known: dict[int, int] = {}  # row -> which text
        self.observed = []

    def propose(self, step):
        grown = []
        for row, position in zip(step.rows, step.base_pos.tolist(), strict=True):
            text = self.texts[self.known[row]]
            nodes = [(text[position], -1)]
            parent = 0
            for token in text[position + 1 : position + 1 + self.depth]:
                for wrong in range(self.width):
                    nodes.append(((token + 1 + wrong) % VOCAB, parent))
                nodes.append((token, parent))
                parent = len(nodes) - 1
            grown.append(nodes)
        flat = [node for nodes in grown for node in nodes]
        ends = torch.tensor([0, *map(len, grown)]).cumsum(0).to(torch.int32)
        tokens, parents = torch.tensor(flat).unbind(1)
        return DraftTree(tokens=tokens.contiguous(), parents=parents.int(), indptr=ends)

    def observe(self, step, tree, logits, path, accept_length, hidden):
        self.observed.append((step, tree, logits.shape, path, accept_length))

    def observe_prompt(self, row, start, tokens, hidden):
        prompt = tokens.tolist()
        found = [i for i, text in enumerate(self.texts) if text[: len(prompt)] == prompt]
        self.known[row] = found[0]
        assert start == 0


def guesses(answers, **options):
    return Guess([p + a.tokens for p, a in zip(PROMPTS, answers, strict=True)], **options)


def same(ours, expected):
    for a, b in zip(ours, expected, strict=True):
        assert (a.tokens, a.text, a.finish_reason) == (b.tokens, b.text, b.finish_reason)
        assert a.error == b.error


# ---- greedy --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_greedy_text_alone_and_in_a_ragged_batch(name, plain):
    same(lmx.generate(tiny(), PROMPTS, max_new_tokens=40, drafter=name), plain)
    for prompt, expected in zip(PROMPTS, plain, strict=True):
        [alone] = lmx.generate(tiny(), [prompt], max_new_tokens=40, drafter=name)
        same([alone], [expected])
        sizes = {"recycle": "recycle:80", "lookup": "lookup:10"}
        assert alone.stats.draft_faults == 0 and alone.stats.drafter == sizes.get(name, name)
        assert alone.stats.nodes >= alone.stats.steps - 1


def test_accepted_tokens_save_steps(plain):
    drafter = guesses(plain)
    answers = lmx.generate(tiny(), PROMPTS, max_new_tokens=40, drafter=drafter)
    same(answers, plain)
    for answer in answers:
        assert answer.stats.steps <= 1 + 8 and answer.stats.mean_accepted > 4
    step, seen, shape, path, length = drafter.observed[0]
    assert shape == (seen.tokens.numel(), VOCAB) and path.shape[0] == len(step.rows)
    assert (length <= path.shape[1] - 1).all()


@pytest.mark.parametrize("window", [None, 8])
def test_windows_and_16_bits(window):
    for dtype in (torch.float32, torch.bfloat16):
        model = tiny(window, dtype)
        expected = lmx.generate(model, PROMPTS, max_new_tokens=30)
        drafter = Guess([p + a.tokens for p, a in zip(PROMPTS, expected, strict=True)], width=0)
        same(lmx.generate(model, PROMPTS, max_new_tokens=30, drafter=drafter), expected)


def test_requests_come_and_go_and_make_room(plain):
    engine = lmx.Engine(tiny(), max_new_tokens=40, drafter="recycle:8", max_seqs=3, num_pages=40)
    ids = [engine.add(prompt) for prompt in PROMPTS for _ in range(2)]
    answers = drain(engine)
    same([answers[i] for i in ids], [a for a in plain for _ in range(2)])
    assert engine.stats().pages_free == 40


def test_what_is_in_pages_is_what_plain_decoding_stores(plain):
    """Keys and values after drafted steps beside those of plain steps over the same text."""
    stored = []
    for drafter in (None, guesses(plain, width=0), guesses(plain)):
        engine = lmx.Engine(tiny(), max_new_tokens=30, drafter=drafter)
        engine.add(PROMPTS[0])
        while engine._scheduler.waiting or not any(
            r.stats.tokens >= 20 for r in engine._scheduler.running
        ):
            engine.step()
        [request] = engine._scheduler.running
        cache, length = engine._cache, len(PROMPTS[0]) + 20 - 1
        rows = cache.block_table[request.row, 0, : -(-length // cache.page_size)].long()
        slots = cache.kv_pages[rows].permute(1, 2, 3, 0, 4, 5).flatten(3, 4)
        keys = slots[:, :, :, :length]
        assert request.tokens[:length] == (PROMPTS[0] + plain[0].tokens)[:length]
        stored.append(keys.clone())
    assert torch.equal(stored[0], stored[1])  # a chain's rows are those of one row at a time
    torch.testing.assert_close(stored[0], stored[2], rtol=1e-5, atol=1e-5)


# ---- ends ----------------------------------------------------------------------------------


def scripted(text, prompt="?", wrong=()):
    """A drafter that drafts the script itself, byte by byte."""

    class Script(Guess):
        def __init__(self):
            super().__init__([list((prompt + text).encode()) + [0] * 20], width=0, depth=6)

    return Script()


@pytest.mark.parametrize("tokens", [1, 2, 5, 9])
def test_max_new_tokens_inside_a_path(tokens):
    model = says("abcdefghijklmnop")
    [a] = lmx.generate(model, ["?"], max_new_tokens=tokens)
    [b] = lmx.generate(model, ["?"], max_new_tokens=tokens, drafter=scripted("abcdefghijklmnop"))
    same([b], [a])
    assert len(b.tokens) == tokens and b.finish_reason == "length"


def test_end_and_stop_inside_a_path():
    for text, options in (("abc", {}), ("abcdefgh", {"stop": "ef"}), ("abcdefgh", {"stop": "cd"})):
        model, pieces = says(text), []
        [a] = lmx.generate(model, ["?"], **options)
        [b] = lmx.generate(
            model,
            ["?"],
            drafter=scripted(text),
            stream=lambda i, piece, pieces=pieces: pieces.append(piece),
            **options,
        )
        same([b], [a])
        assert "".join(pieces) == a.text and b.stats.steps < a.stats.steps


def test_positions_run_out_inside_a_path():
    model = says("abcdefgh", max_positions=5)
    [a] = lmx.generate(model, ["?"])
    [b] = lmx.generate(model, ["?"], drafter=scripted("abcdefgh"))
    same([b], [a])
    assert b.finish_reason == "length" and len(b.tokens) == 5


# ---- option pairs --------------------------------------------------------------------------


def add_one(tokens, logits):
    """A processor that depends on the whole text: rules out the last token but one."""
    if len(tokens) > 1:
        logits[tokens[-2]] = -torch.inf
    return logits


PAIRS = {
    "processors": {"processors": [add_one]},
    "penalties": {
        "sampling": Sampling(repetition_penalty=1.3, presence_penalty=0.5, frequency_penalty=0.2)
    },
    "logit_bias": {"sampling": Sampling(logit_bias={3: 4.0, 5: -torch.inf})},
    "logprobs": {"sampling": Sampling(logprobs=2)},
}


@pytest.mark.parametrize("option", PAIRS)
def test_options_see_every_node_as_text(option):
    expected = lmx.generate(tiny(), PROMPTS, max_new_tokens=20, **PAIRS[option])
    for drafter in ("recycle:16", "lookup", guesses(expected, width=1)):
        ours = lmx.generate(tiny(), PROMPTS, max_new_tokens=20, drafter=drafter, **PAIRS[option])
        same(ours, expected)
        for a, b in zip(ours, expected, strict=True):
            if b.logprobs is None:
                continue
            for x, y in zip(a.logprobs, b.logprobs, strict=True):
                assert (x.token, [t for t, _ in x.top]) == (y.token, [t for t, _ in y.top])
                assert x.logprob == pytest.approx(y.logprob, abs=1e-4)


def test_a_grammar_masks_every_node():
    text = '{"a": [1, 2, 3, 1, 2, 3]}'
    model = says(text)
    for grammar in (Grammar.json(), Grammar.from_regex("[a-z]+")):
        constraint = byte_grammar(grammar)
        [a] = lmx.generate(model, ["?"], constraint=constraint, max_new_tokens=30)
        for drafter in ("lookup", "recycle:16", scripted(text), scripted("xyz" * 9)):
            [b] = lmx.generate(
                model, ["?"], constraint=constraint, max_new_tokens=30, drafter=drafter
            )
            same([b], [a])


def test_n_answers_share_a_prompt():
    sampling = Sampling(temperature=0.8, n=3, seed=4)
    model = tiny()
    runs = [
        lmx.generate(model, PROMPTS[:2], max_new_tokens=20, sampling=sampling, drafter="recycle:8")
        for _ in range(2)
    ]
    assert [a.tokens for a in runs[0]] == [a.tokens for a in runs[1]]
    assert len(runs[0]) == 6 and all(a.error is None for a in runs[0])


# ---- sampling ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["recycle:16", "lookup", "recycle:8+lookup:4"])
def test_sampled_text_alone_and_in_a_batch(name):
    settings = [Sampling(temperature=0.7, seed=3), Sampling(), Sampling(temperature=1.0, top_k=9)]
    settings.append(Sampling(temperature=0.9, top_p=0.9, seed=8))
    model = tiny()
    options = {"max_new_tokens": 30, "drafter": name}
    together = lmx.generate(model, PROMPTS, sampling=settings, **options)
    for prompt, sampling, expected in zip(PROMPTS, settings, together, strict=True):
        same(lmx.generate(model, [prompt], sampling=sampling, **options), [expected])
    for prompt, a in ((PROMPTS[1], together[1]),):  # the greedy one, in a sampled batch
        same(lmx.generate(model, [prompt], max_new_tokens=30), [a])


class Likely:
    """Drafts for `table_model`: the two likeliest tokens, and one below each."""

    taps = ()

    def __init__(self, model):
        self.model = model

    def propose(self, step):
        nodes, ends = [], [0]
        for token, position in zip(step.pending.tolist(), step.base_pos.tolist(), strict=True):
            law = self.model._logits(position, token)
            first, second = law.topk(2).indices.tolist()
            below = int(self.model._logits(position + 1, first).argmax())
            nodes += [(token, -1), (first, 0), (second, 0), (first, 0), (below, 1)]
            ends.append(len(nodes))
        tokens, parents = torch.tensor(nodes).unbind(1)
        return DraftTree(
            tokens=tokens.contiguous(), parents=parents.int(), indptr=torch.tensor(ends).int()
        )

    def observe(self, *args):
        pass

    def observe_prompt(self, *args):
        pass


def test_the_law_of_drafted_text_is_that_of_plain_sampling():
    """Three tokens over a vocabulary of four, by chi-square against the exact law."""
    vocab_size, trials = 4, 4000
    model = table_model(vocab_size)
    sampling = [Sampling(temperature=0.7, seed=seed) for seed in range(trials)]
    answers = lmx.generate(
        model, [[1]] * trials, max_new_tokens=3, sampling=sampling, drafter=Likely(model)
    )
    law = torch.zeros(vocab_size, vocab_size, vocab_size, dtype=torch.float64)
    rows = {
        (p, t): (model._logits(p, t).double() / 0.7).softmax(-1) for p in range(3) for t in range(4)
    }
    for a in range(4):
        for b in range(4):
            law[a, b] = rows[0, 1][a] * rows[1, a][b] * rows[2, b]
    counts = torch.zeros_like(law)
    for answer in answers:
        counts[tuple(answer.tokens)] += 1
    chi_square = float(((counts - trials * law) ** 2 / (trials * law)).sum())
    assert chi_square < 103.4  # of 63 degrees of freedom, 99.9 %
    assert sum(a.stats.steps for a in answers) < 3 * trials * 0.9


# ---- bad drafters --------------------------------------------------------------------------


class Bad(Guess):
    """A drafter with something wrong in some of its trees."""

    def __init__(self, texts, fault):
        super().__init__(texts, width=0)
        self.fault = fault

    def propose(self, step):
        if self.fault == "raises":
            raise RuntimeError("no idea")
        t = super().propose(step)
        changes = {
            "forward": {"parents": torch.where(t.parents == 2, 9, t.parents)},
            "token": {"tokens": torch.where(t.parents == 1, VOCAB, t.tokens)},
            "root": {"tokens": torch.where(t.parents < 0, (t.tokens + 1) % VOCAB, t.tokens)},
            "dtype": {"parents": t.parents.long()},
            "short": {"indptr": t.indptr[:-1]},
            "offsets": {"indptr": t.indptr + 1},
            "kind": {"kind": "wor"},
        }
        if self.fault == "none":
            return None
        fields = {"tokens": t.tokens, "parents": t.parents, "indptr": t.indptr}
        return DraftTree(**(fields | changes[self.fault]))


@pytest.mark.parametrize(
    "fault",
    ["raises", "none", "forward", "token", "root", "dtype", "short", "offsets", "kind"],
)
def test_an_illegal_tree_costs_a_plain_step_and_is_told(fault, plain, caplog):
    texts = [p + a.tokens for p, a in zip(PROMPTS, plain, strict=True)]
    with caplog.at_level(logging.WARNING, logger="lmx"):
        answers = lmx.generate(tiny(), PROMPTS, max_new_tokens=40, drafter=Bad(texts, fault))
    same(answers, plain)
    assert all(a.stats.draft_faults > 0 for a in answers)
    assert any("drafter guess" in r.message and "plain step" in r.message for r in caplog.records)


def test_a_bad_tree_of_one_request_leaves_the_others_theirs(plain):
    class One(Guess):
        def propose(self, step):
            t = super().propose(step)
            for at, row in enumerate(step.rows):
                if self.known[row] == 1:
                    t.parents[t.indptr[at]] = 0
            return t

    texts = [p + a.tokens for p, a in zip(PROMPTS, plain, strict=True)]
    answers = lmx.generate(tiny(), PROMPTS, max_new_tokens=40, drafter=One(texts, width=0))
    same(answers, plain)
    assert answers[1].stats.draft_faults > 0 and answers[1].stats.mean_accepted == 1
    others = [a.stats for i, a in enumerate(answers) if i != 1]
    assert all(s.draft_faults == 0 and s.mean_accepted > 3 for s in others)


def test_one_processor_that_fails_ends_its_request_alone(plain):
    def fails(tokens, logits):
        if len(tokens) > len(PROMPTS[0]) + 3:
            raise RuntimeError("no more")
        return logits

    engine = lmx.Engine(tiny(), max_new_tokens=40, drafter="recycle:8")
    bad = engine.add(PROMPTS[0], processors=[fails])
    good = engine.add(PROMPTS[1])
    answers = drain(engine)
    assert answers[bad].finish_reason == "error" and "no more" in answers[bad].error
    same([answers[good]], [plain[1]])
    assert engine.stats().pages_free == engine.stats().pages


# ---- names ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["", "recycler", "recycle:0", "recycle:1024", "recycle:x", "lookup:0", "early-exit"]
    + ["early-exit:2", "none:1", "recycle+", "recycle:auto:2"],
)
def test_names_that_are_none(name):
    with pytest.raises(ValueError, match=r"drafter"):
        lmx.Engine(tiny(), drafter=name)


def test_drafters_that_the_loop_cannot_serve():
    with pytest.raises(ValueError, match="expected layers below the model's 2, got 2"):
        lmx.Engine(tiny(), drafter=EarlyExit(layers=2))
    with pytest.raises(ValueError, match="EarlyExit: expected layers and num_draft >= 1"):
        EarlyExit(layers=0)
    tapped = Guess([[1]])
    tapped.taps = (1,)
    with pytest.raises(ValueError, match=r"without taps, got layers \(1,\)"):
        lmx.Engine(tiny(), drafter=tapped)
    with pytest.raises(ValueError, match="a Drafter or a short string"):
        lmx.Engine(tiny(), drafter=7)


def test_no_drafter_is_plain(plain):
    for drafter in (None, "none", NoDrafter()):
        answers = lmx.generate(tiny(), PROMPTS, max_new_tokens=40, drafter=drafter)
        same(answers, plain)
        assert all(a.stats.drafter is None and a.stats.nodes == 0 for a in answers)


def test_auto_sizes_follow_the_text(plain):
    for name in ("recycle:auto", "lookup:auto"):
        answers = lmx.generate(tiny(), PROMPTS, max_new_tokens=40, drafter=name)
        same(answers, plain)
    costs = tree.StepCosts((1, 32), (1.0, 1.01))
    template = tree.likeliest(32)
    cheap = tree.TokenRecycling(VOCAB, template=template, sizer=tree.Sizer(template, costs))
    answers = lmx.generate(tiny(), PROMPTS, max_new_tokens=40, drafter=cheap)
    same(answers, plain)
