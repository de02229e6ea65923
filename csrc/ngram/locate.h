// csrc/ngram/locate.h: where a string stands, from its ranges.
// Row q lists min(k, count) occurrences as (shard, position, document, offset in the document): all
// of them, by shard and rank, where the count is at most k, else k different ones, each set equally
// likely as far as the mixing function goes: occurrence i is the rank perm(i) of a permutation of
// [0, count) that depends on seed and count alone. Documents are numbered over all shards. -1 where
// there is none. Not for indexes with subtracted shards.
#pragma once
#include "../common/isa.h"
#include "../common/philox.h"
#include "search.h"

struct CUstream_st;
namespace lmx::ngram {
struct LocateParams {
  Index index;         // with docs
  const int64_t* rng;  // [num_queries, S, 2]
  int64_t num_queries, k, seed;
  int64_t* where;   // [num_queries, k, 4]
  int32_t* status;  // [num_queries] or null
};

// A permutation of [0, size): four rounds of a Feistel network over the least even number of bits
// that holds size, walked until the value is below size (Black and Rogaway 2002, section 3).
LMX_HD int64_t permuted(int64_t i, int64_t size, int64_t seed) {
  int half = 1;
  while (half < 31 && int64_t{1} << (2 * half) < size) ++half;
  const uint64_t mask = (uint64_t{1} << half) - 1;
  auto x = static_cast<uint64_t>(i);
  do {
    uint64_t left = x >> half, right = x & mask;
    for (uint32_t round = 0; round < 4; ++round) {
      const uint64_t mixed = philox_word(seed, size, static_cast<uint32_t>(Purpose::occurrence),
                                         static_cast<uint32_t>(right), round);
      const uint64_t swapped = left ^ (mixed & mask);
      left = right, right = swapped;
    }
    x = left << half | right;
  } while (x >= static_cast<uint64_t>(size));
  return static_cast<int64_t>(x);
}

// The document that holds `position`: docs[d] < position < docs[d + 1]; a SEP belongs to the
// document that it opens. -1 in a corrupt index.
template <typename Order>
LMX_HD int64_t document_of(const Shard<Order>& shard, int64_t position) {
  int64_t lo = 0, hi = shard.num_docs;
  while (lo < hi) {
    const int64_t mid = (lo + hi) >> 1;
    if (shard.docs[mid] <= position)
      lo = mid + 1;
    else
      hi = mid;
  }
  return lo - 1;
}

// Writes occurrence i of query q.
template <typename Order>
LMX_HD int32_t locate_one(const LocateParams& p, int64_t q, int64_t i) {
  int64_t* where = p.where + (q * p.k + i) * 4;
  where[0] = where[1] = where[2] = where[3] = -1;
  int64_t count = 0;
  int32_t bits = 0;
  for (int64_t s = 0; s < p.index.num_shards; ++s) {
    Shard<Order> shard;
    bool bad = false;
    if (!shard_at(p.index, s, shard)) bits |= kStatusCorrupt;
    const Range r = checked(shard, p.rng + (q * p.index.num_shards + s) * 2, bad);
    if (bad || shard.sign < 0) bits |= kStatusBadValue;
    count += r.hi - r.lo;
  }
  if (bits || i >= count) return bits;
  int64_t left = count <= p.k ? i : permuted(i, count, p.seed), docs_before = 0;
  for (int64_t s = 0; s < p.index.num_shards; ++s) {
    Shard<Order> shard;
    shard_at(p.index, s, shard);
    const int64_t* r = p.rng + (q * p.index.num_shards + s) * 2;
    if (left < r[1] - r[0]) {
      const int64_t position = shard.position(r[0] + left);
      const int64_t doc = position < 0 ? -1 : document_of(shard, position);
      if (doc < 0 || shard.docs[doc] < 0) return kStatusCorrupt;
      where[0] = s, where[1] = position, where[2] = docs_before + doc;
      where[3] = position - shard.docs[doc] - 1;
      return 0;
    }
    left -= r[1] - r[0], docs_before += shard.num_docs;
  }
  return kStatusCorrupt;
}

LMX_CPU_KERNEL(locate_cpu, LocateParams)
void locate_cuda(const LocateParams& p, CUstream_st* stream);
}  // namespace lmx::ngram
