from collections.abc import Callable, Sequence

from torch import Tensor

cpu_isa: str
"""The level of the kernels in use: "v3", "v4" or "amx"; "none": the processor is too old."""
torch_target: str
"""The oldest torch whose stable ABI the binary needs, as TORCH_TARGET_VERSION."""

class ngram:  # noqa: N801  (a module)
    """Host classes of the n-gram room (csrc/ngram/host)."""

    class Cancelled(RuntimeError): ...

    class Job:
        """A sort that another thread may watch and stop."""

        steps: int
        def cancel(self) -> None: ...

    class Mapping:
        """Files in one range of addresses; a buffer of bytes."""

        offsets: list[int]
        def __init__(self, pieces: list[tuple[str, int, int]], ram: bool) -> None: ...
        def __buffer__(self, flags: int, /) -> memoryview: ...

    class Found:
        """A string, its count and its ranges by shard."""

        length: int
        count: int
        ranges: list[tuple[int, int]]

    class Searcher:
        """Single queries; None where the index is corrupt."""

        def __init__(
            self,
            buffers: list[object],
            token_bytes: int,
            vocab_size: int,
            eos_id: int,
            ptr_bytes: int,
        ) -> None: ...
        def count(self, query: object, strict: bool = True) -> int | None: ...
        def sum_of_counts(self, qtok: object, qoff: object) -> int: ...
        def find(self, query: object, strict: bool = True) -> ngram.Found | None: ...
        def longest_suffix(
            self,
            context: object,
            max_len: int = 0,
            min_count: int = 1,
            prev_len: int = -1,
            strict: bool = True,
        ) -> ngram.Found | None: ...
        def next(self, found: ngram.Found, token: int) -> int | None: ...

    @staticmethod
    def crc32c(bytes: object, crc: int = 0) -> int: ...
    @staticmethod
    def sort_shard(
        text: object, token_bytes: int, vocab_size: int, all: object, job: ngram.Job
    ) -> None: ...
    @staticmethod
    def fill_tables(
        text: object, token_bytes: int, vocab_size: int, sa: object, lut: object, skey: object
    ) -> None: ...
    @staticmethod
    def check_tables(
        text: object,
        token_bytes: int,
        vocab_size: int,
        sa: object,
        lut: object,
        skey: object,
        samples: int,
        seed: int,
    ) -> tuple[str, int]: ...

class grammar:
    """Host classes of lmx.grammar."""

    class Spelling:
        """How a vocabulary's entries spell bytes."""

        RAW: grammar.Spelling
        BYTE_FALLBACK: grammar.Spelling
        BYTE_LEVEL: grammar.Spelling

    class Vocabulary:
        """The tables behind TokenizerInfo."""

        size: int
        num_words: int
        longest: int
        fingerprint: int
        stop_ids: list[int]
        special_ids: list[int]
        def __init__(
            self,
            entries: Sequence[bytes],
            spelling: grammar.Spelling,
            size: int,
            stop_ids: Sequence[int],
            special_ids: Sequence[int],
        ) -> None: ...
        def token_bytes(self, token: int) -> bytes: ...
        def memory_bytes(self) -> int: ...
        def save(self) -> bytes: ...
        @staticmethod
        def load(data: bytes) -> grammar.Vocabulary: ...

    class Grammar:
        """A grammar as it is written."""

        warnings: list[str]
        num_rules: int
        key: str  # equal keys mean equal languages
        @staticmethod
        def from_ebnf(text: str, root: str = "root") -> grammar.Grammar: ...
        @staticmethod
        def from_regex(pattern: str, flags: str = "") -> grammar.Grammar: ...
        @staticmethod
        def json(gap: str, only_containers: bool = False) -> grammar.Grammar: ...
        @staticmethod
        def union(grammars: Sequence[grammar.Grammar]) -> grammar.Grammar: ...
        @staticmethod
        def concat(grammars: Sequence[grammar.Grammar]) -> grammar.Grammar: ...

    class SchemaOptions:
        """How a JSON schema is read; see Grammar.from_json_schema."""

        any_order: bool
        strict: bool
        lenient: bool
        integer_fraction: bool
        every_escape: bool
        formats: str
        gap: str
        item_separator: str
        key_separator: str
        indent: int
        registry: list[tuple[str, str]]
        def __init__(self) -> None: ...

    @staticmethod
    def schema_grammar(text: str, options: grammar.SchemaOptions) -> grammar.Grammar: ...
    @staticmethod
    def explain_schema(text: str, options: grammar.SchemaOptions) -> list[str]: ...
    @staticmethod
    def structural_tag(
        text: str, options: grammar.SchemaOptions, token_of: Callable[[str], int]
    ) -> grammar.Grammar: ...

    class CompiledGrammar:
        """A grammar over a vocabulary; threads may share it. ``Compiler.compile`` makes one."""

        text: str  # EBNF of the same language
        vocabulary: grammar.Vocabulary
        num_generations: int  # how often stacks and masks were begun, one more than made anew
        def __init__(
            self,
            grammar: grammar.Grammar,
            vocabulary: grammar.Vocabulary,
            limit_ms: int,
            max_steps: int,
            max_memory: int,
            cache: bool,
        ) -> None: ...
        def memory_bytes(self) -> int: ...
        def precompute(self, max_ms: int) -> int:
            """Make masks of states ahead of time; return of how many."""

    class Matcher:
        """Where a text stands in a grammar. One thread at a time may use it.

        A step is a token, or the bytes of one ``accept_bytes``; any number can be undone. Once a
        stop token is read only stop tokens may follow, and nothing raises.
        """

        steps: int  # steps so far
        handle: int  # its number, for operators
        compiled: grammar.CompiledGrammar
        def __init__(
            self,
            compiled: grammar.CompiledGrammar,
            stop_ids: Sequence[int] | None = None,
            terminate_without_stop: bool = False,
        ) -> None: ...
        def fork(self) -> grammar.Matcher:
            """Return a copy that goes its own way; the history is shared."""
        def accept(self, token: int) -> bool:
            """Read a token. False, and nothing changes, if it is not allowed.

            Raises ValueError outside the vocabulary, GrammarLimitError at a limit.
            """
        def accept_many(self, tokens: Sequence[int]) -> int:
            """Read tokens up to the first that is not allowed; return how many."""
        def accept_bytes(self, data: bytes | str) -> bool:
            """Read bytes as one step: all of them, or nothing changes."""
        def validate(self, tokens: Sequence[int]) -> int:
            """Return how many of the tokens ``accept_many`` would read."""
        def fill(self, bitmask: Tensor, row: int = 0) -> bool:
            """Write the tokens that may come next into a row of an int32 bitmask.

            False if every token may: the mask need not be applied. Raises ValueError for a bitmask
            of another shape, type or device, GrammarLimitError at a limit.
            """
        def fill_tree(
            self,
            parents: Sequence[int],
            tokens: Sequence[int],
            bitmask: Tensor,
            root_is_current: bool = False,
            max_ms: int = 0,
        ) -> tuple[int, ...]:
            """See ``BatchMatcher.fill_tree``."""
        def rollback(self, steps: int) -> None:
            """Undo steps. Raises ValueError for more than there are."""
        def reset(self) -> None:
            """Undo all steps."""
        def is_completed(self) -> bool:
            """Return whether the text may end here."""
        def is_terminated(self) -> bool:
            """Return whether a stop token was read."""
        def mask_id(self) -> int:
            """Return a number that is equal for equal masks, as long as ``generation`` is."""
        def generation(self) -> int:
            """Return which generation of the grammar's memory mask ids belong to."""
        def forced_bytes(self, utf8_complete: bool = True) -> bytes:
            """Return what must come next, up to the first choice; whole characters unless told."""
        def forced_tokens(self, encode: Callable[[str], list[int]]) -> list[int]:
            """Return the tokens of the forced text.

            The last ones, up to four, are left out where another token that is allowed begins with
            their text and goes on: the model might have chosen it.
            """

    class PendingFill:
        """A fill under way."""

        def wait(self) -> list[int]:
            """Return the statuses, once all rows are written."""
        def done(self) -> bool: ...

    @staticmethod
    def fill_batch(
        matchers: Sequence[grammar.Matcher],
        bitmask: Tensor,
        rows: Sequence[int] | None,
        num_threads: int,
    ) -> list[int]: ...
    @staticmethod
    def fill_async(
        matchers: Sequence[grammar.Matcher],
        bitmask: Tensor,
        rows: Sequence[int] | None,
        num_threads: int,
    ) -> grammar.PendingFill: ...
    @staticmethod
    def time_calls(
        matcher: grammar.Matcher, token: int, count: int
    ) -> tuple[float, float, float, float]: ...
    @staticmethod
    def device_tables(
        compiled: grammar.CompiledGrammar, max_states: int
    ) -> tuple[int, bytes, bytes, int, bytes, bytes]: ...
    @staticmethod
    def device_vocabulary(vocabulary: grammar.Vocabulary) -> tuple[bytes, bytes]: ...
