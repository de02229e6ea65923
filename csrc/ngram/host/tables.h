// csrc/ngram/host/tables.h: what a builder makes of a text, and how a reader checks it.
#pragma once
#include <atomic>
#include <cstdint>
#include <stdexcept>

#include "../search.h"

namespace lmx::ngram {
// The crc32c (Castagnoli, reflected, RFC 3720 section 12.1) of bytes that follow others of `crc`.
uint32_t crc32c(const void* bytes, size_t size, uint32_t crc);

struct Cancelled : std::runtime_error {
  Cancelled() : std::runtime_error("the build was cancelled") {}
};
// Seen by the thread that sorts and by the one that waits.
struct Job {
  std::atomic<bool> cancelled{false};
  std::atomic<int64_t> steps{0};  // of a sort, roughly six a token
  void tick(int64_t done) {
    steps.fetch_add(done, std::memory_order_relaxed);
    if (cancelled.load(std::memory_order_relaxed)) throw Cancelled();
  }
};

// One shard's text and tables in memory; token_bytes tells the type of `text`.
struct Tables {
  const void* text;
  int64_t num_tokens;
  uint32_t* sa;  // [num_suffixes]
  int64_t num_suffixes;
  int64_t* lut;    // [vocab_size + 2]
  uint64_t* skey;  // [ceil(num_suffixes / 64)]
  int64_t vocab_size;
  int token_bytes;
};

// Sorts the text into `all` [num_tokens], whose first num_suffixes entries are the array.
void sort_shard(const Tables& t, int32_t* all, Job& job);
// Fills lut and skey from text and sa.
void fill_tables(const Tables& t);
// What is wrong with text, sa, lut and skey, or "". `samples` 0: everything, with 4 * num_tokens
// bytes for ranks; else so many random ranks and neighbours.
const char* check_tables(const Tables& t, int64_t samples, int64_t seed, int64_t* where);
}  // namespace lmx::ngram
