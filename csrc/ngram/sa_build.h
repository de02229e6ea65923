// csrc/ngram/sa_build.h: the suffix array of a shard's text, in the native order of index.h.
// text[0] and text[N - 1] are SEP; every other token is SEP or below vocab_size. sa holds the
// num_suffixes = N - (D + 1) positions that hold a token. The array is unique: every backend gives
// the same.
#pragma once
#include "../common/isa.h"
#include "index.h"

struct CUstream_st;
namespace lmx::ngram {
constexpr int kSortChunks = 128;
constexpr int64_t kMaxShardTokens = (int64_t{1} << 31) - 2;

struct SaBuildParams {
  const void* text;  // [num_tokens] of token_bytes
  int64_t num_tokens, num_suffixes, vocab_size;
  int token_bytes;
  uint32_t* sa;  // [num_suffixes]
  // Workspaces of the CUDA side. `count` is how many suffixes still share a rank.
  uint64_t* keys[2];               // [num_tokens]
  uint32_t* positions[2];          // [num_tokens]
  uint32_t *order, *rank, *first;  // [num_tokens]
  uint32_t *table, *count;         // [256 * kSortChunks], [1]
};
LMX_CPU_KERNEL(sa_build_cpu, SaBuildParams)
void sa_build_cuda(const SaBuildParams& p, CUstream_st* stream);
}  // namespace lmx::ngram
