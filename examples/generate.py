"""Stream two answers at a time, sampled: the text depends on the seed, not on the batch."""

import lmx
from lmx.cli.terminal import escape

QUESTIONS = ("Name three rivers in Europe.", "Write one line of verse about the moon.")


def main() -> None:
    """Print the pieces as they come, then the answers."""
    model = lmx.load("smollm2")
    engine = lmx.Engine(
        model,
        max_new_tokens=24,
        sampling=lmx.Sampling(temperature=0.8, top_p=0.95, seed=7),
        stop="\n\n",
        stream=lambda request, piece: print(f"{request}: {escape(piece)!r}"),
    )
    for question in QUESTIONS:  # more may be added at any time
        engine.add([{"role": "user", "content": question}])
    while engine.num_unfinished:
        engine.step()
    for request, answer in sorted(engine.finished().items()):
        print(f"\n> {QUESTIONS[request]}\n{escape(answer.text)}")
        print(f"[{answer.finish_reason}, {answer.stats.tokens_per_s:.1f} tokens/s]")


if __name__ == "__main__":
    main()
