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
