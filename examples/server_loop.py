"""A server without a network: requests arrive at random, share one page pool, and come back.

    python examples/server_loop.py [--requests 64] [--pages 160] [--rate 4]

The pool is made small on purpose, so that requests wait and make room for one another; what each
one answers does not depend on it.
"""

import argparse
import random
import statistics
import time

import lmx
from lmx.protocols import LayeredModel

PREAMBLE = "You are a careful assistant. Answer in one sentence. "
TOPICS = ("rivers", "bridges", "whales", "comets", "glass", "maps", "bees", "tides")


def read_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--pages", type=int, default=160, help="of 16 tokens")
    parser.add_argument("--max-seqs", type=int, default=16, help="decoded at a time")
    parser.add_argument("--rate", type=float, default=4.0, help="requests per second")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def arrivals(args: argparse.Namespace) -> list[tuple[float, str, int, lmx.Sampling]]:
    """Return when each request comes, what it asks, how much, and how its tokens are drawn."""
    dice, now, requests = random.Random(args.seed), 0.0, []
    for seed in range(args.requests):
        now += dice.expovariate(args.rate)
        words = " and ".join(dice.sample(TOPICS, dice.randint(1, 4)))
        text = PREAMBLE * dice.randint(1, 4) + f"What have {words} in common?"
        sampling = lmx.Sampling(temperature=dice.choice([0.0, 0.8]), seed=seed)
        requests.append((now, text, dice.randint(4, 48), sampling))
    return requests


def serve(model: LayeredModel, args: argparse.Namespace) -> None:
    """Answer all requests and print what it took."""
    engine = lmx.Engine(model, max_seqs=args.max_seqs, num_pages=args.pages)
    coming, came, latencies, tokens = arrivals(args)[::-1], {}, [], 0
    started = time.perf_counter()
    while coming or engine.num_unfinished:
        now = time.perf_counter() - started
        while coming and (coming[-1][0] <= now or not engine.num_unfinished):  # skip idle time
            _, text, length, sampling = coming.pop()
            came[engine.add(text, max_new_tokens=length, sampling=sampling)] = now
        engine.step()
        now = time.perf_counter() - started
        for request, answer in engine.finished().items():
            if answer.error:
                print(f"request {request}: {answer.error}")
            latencies.append(now - came[request])
            tokens += answer.stats.tokens
    report(engine.stats(), latencies, tokens, time.perf_counter() - started)


def report(
    stats: lmx.decode.EngineStats, latencies: list[float], tokens: int, seconds: float
) -> None:
    """Print latency, throughput and what happened to the pages."""
    worst = sorted(latencies)[int(0.95 * (len(latencies) - 1))]
    middle = statistics.median(latencies)
    print(f"{len(latencies)} requests in {seconds:.1f} s, {tokens} tokens")
    print(f"latency     {middle:.2f} s median, {worst:.2f} s at the 95th percentile")
    print(f"throughput  {tokens / seconds:.1f} tokens/s, {tokens / stats.steps:.1f} a step")
    print(f"pages       {stats.most_pages} of {stats.pages} in use at most")
    print(f"            {stats.preemptions} times a request made room for an older one")
    print(f"prompts     {stats.prompt_tokens} tokens run, {stats.prefix_tokens} found in pages")


if __name__ == "__main__":
    serve(lmx.load("smollm2"), read_arguments())
