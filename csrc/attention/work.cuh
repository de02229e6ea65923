// csrc/attention/work.cuh: the units of work of attend.cuh, and which keys the rows of one see.
#pragma once
#include "../common/warp.cuh"
#include "sight.h"
#include "split.h"
#include "stage.cuh"

namespace lmx::attention {
// ---- units -----------------------------------------------------------------------------------
struct Chunks {
  int64_t first, count;
};
LMX_HD Chunks chunks_of(KeyRange keys) {
  const int64_t first = keys.begin / kChunk;
  return {first, keys.begin < keys.end ? ceil_div<int64_t>(keys.end, kChunk) - first : 0};
}

// A tile of rows that read one key head, and all their keys or one chunk.
struct Unit {
  int64_t index, b, head, tile, chunk;
};

__device__ __forceinline__ const int32_t* valid_of(const PagedParams& p) {
  return reinterpret_cast<const int32_t*>(p.space);
}

// Unit `index` of those that there are: the sequences' one after the other, tiles changing fastest,
// as they share keys. False: there is none. All lanes of a warp call.
__device__ __forceinline__ bool find_unit(const PagedParams& p, const Split& split, int64_t index,
                                          Unit& unit) {
  const int lane = threadIdx.x % 32;
  const int64_t whole = index;
  for (int64_t first = 0; first < p.num_seqs; first += 32) {
    int64_t tiles = 0, count = 0;
    if (first + lane < p.num_seqs && valid_of(p)[first + lane]) {
      const Sequence s = sequence_of(p, first + lane);
      tiles = ceil_div<int64_t>(s.num_q * (p.num_heads / p.num_kv_heads), split.tile_rows);
      const int64_t chunks =
          split.by_chunk ? chunks_of(keys_of(p, s, s.num_q - 1)).count : int64_t{1};
      count = tiles * chunks * p.num_kv_heads;
    }
    int64_t end = count;  // of the units of this lane's sequence
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
      const int64_t other = __shfl_up_sync(~0u, end, distance);
      if (lane >= distance) end += other;
    }
    const int64_t all = __shfl_sync(~0u, end, 31);
    if (index >= all) {
      index -= all;
      continue;
    }
    const int owner = __ffs(static_cast<int>(__ballot_sync(~0u, index < end))) - 1;
    const int64_t local = index - __shfl_sync(~0u, end - count, owner);
    tiles = __shfl_sync(~0u, tiles, owner);
    unit.index = whole, unit.b = first + owner;
    unit.tile = local % tiles;
    unit.head = local / tiles % p.num_kv_heads;
    unit.chunk = local / tiles / p.num_kv_heads;
    return true;
  }
  return false;
}

// ---- a unit ----------------------------------------------------------------------------------
// What all threads know of it; in shared memory, as registers are few.
struct Work {
  Unit unit;
  Sequence s;
  int64_t first_row, end_row;  // of the sequence's rows that read the key head
  KeyRange keys;
  int32_t end_tile;        // of keys
  int32_t least, largest;  // positions of rows
  bool exists;             // false: the rows' keys end before this chunk
};

// One warp calls.
template <int kRows, int kKeys>
__device__ __forceinline__ void open_work(const PagedParams& p, const Split& split,
                                          const Unit& unit, Work& to) {
  const int group = p.num_heads / p.num_kv_heads, lane = threadIdx.x % 32;
  const Sequence s = sequence_of(p, unit.b);
  const int64_t first_row = unit.tile * kRows, rows = s.num_q * group;
  const int64_t end_row = first_row + kRows < rows ? first_row + kRows : rows;
  const int64_t first = first_row / group, last = (end_row - 1) / group;
  KeyRange keys = keys_of(p, s, last);
  bool exists = true;
  if (split.by_chunk) {
    const int64_t begin = (chunks_of(keys).first + unit.chunk) * kChunk;
    exists = begin < keys.end;
    keys.begin = keys.begin > begin ? keys.begin : begin;
    keys.end = keys.end < begin + kChunk ? keys.end : begin + kChunk;
  }
  int32_t least = INT32_MAX, largest = INT32_MIN;
  for (int64_t i = first + lane; i <= last; i += 32) {
    const int32_t pos = p.query_pos[s.first_q + i];
    least = min(least, pos), largest = max(largest, pos);
  }
  least = __reduce_min_sync(kFullWarp, least), largest = __reduce_max_sync(kFullWarp, largest);
  if (lane == 0)
    to = {unit,    s,       first_row,
          end_row, keys,    static_cast<int32_t>(ceil_div<int64_t>(keys.end, kKeys)),
          least,   largest, exists};
}

// Whether the token of this thread sees some fresh key of the tile that starts at key `first`.
template <int kKeys>
__device__ __forceinline__ bool sees_some(const PagedParams& p, const Work& w, int64_t first) {
  const int group = p.num_heads / p.num_kv_heads;
  const int64_t token = w.first_row / group + threadIdx.x;
  if (token * group >= w.end_row) return false;
  const uint32_t* words = p.ancestors + (w.s.first_q + token) * p.ancestor_words;
  uint32_t bits = 0;
#pragma unroll
  for (int i = 0; i < kKeys / 32; ++i)
    bits |= bits_at(words, p.ancestor_words, first - w.s.num_slots + 32 * i);
  return bits != 0;
}

// The first tile of keys from `tile` on that some row may see; all threads of the block call.
template <int kKeys>
__device__ __forceinline__ int next_tile(const PagedParams& p, const Work& w, int64_t tile) {
  while (tile < w.end_tile) {
    const int64_t first = tile * kKeys, border = w.s.num_slots / kKeys;
    const int64_t last = (first + kKeys < w.keys.end ? first + kKeys : w.keys.end) - 1;
    int64_t next = tile;
    if (last < w.s.num_slots && !p.slot_pos) {
      if (p.causal && first > w.largest)
        next = border;
      else if (p.window >= 0 && w.least - last >= p.window && first >= p.num_sinks)
        next = min((w.least - p.window + 1) / kKeys, border);
      else
        return static_cast<int>(tile);
    } else if (first >= w.s.num_slots && p.ancestors) {
      if (__syncthreads_or(sees_some<kKeys>(p, w, first))) return static_cast<int>(tile);
    } else {
      return static_cast<int>(tile);
    }
    tile = tile + 1 > next ? tile + 1 : next;
  }
  return w.end_tile;
}

// Whether every row sees every key of a tile.
template <int kKeys>
__device__ __forceinline__ bool sees_all(const PagedParams& p, const Work& w, int64_t tile) {
  const int64_t first = tile * kKeys, last = first + kKeys - 1;
  if (p.slot_pos || first < w.keys.begin || last >= w.keys.end || last >= w.s.num_slots)
    return false;
  if (p.causal && last > w.least) return false;
  return p.window < 0 || w.largest - first < p.window || last < p.num_sinks;
}

// A query row of the tile.
struct Row {
  int32_t token;     // of the sequence; -1: there is no such row
  int32_t own, pos;  // its own fresh key, for key_keep
  float slope;
};

// A bit for each of the 32 keys of a tile from `first` on that a row sees, positions apart.
template <int kKeys>
__device__ __forceinline__ uint32_t sight(const PagedParams& p, const Work& w,
                                          const KeyTile<kKeys>& tile, int first, const Row& row) {
  if (row.token < 0) return 0;
  const int64_t fresh =
      int64_t{tile.index} * kKeys + first - w.s.num_slots;  // of bit 0; may be below 0
  const uint32_t live = tile.live[first / 32];
  if (fresh <= -32) return live;
  uint32_t sees = ~0u, kept = tile.kept[first / 32];
  if (p.ancestors)
    sees = bits_at(p.ancestors + (w.s.first_q + row.token) * p.ancestor_words, p.ancestor_words,
                   fresh);
  else if (p.causal)
    sees = low_bits(w.s.num_k - w.s.num_q + row.token + 1 - fresh);
  if (row.own >= fresh && row.own < fresh + 32) kept |= 1u << (row.own - fresh);
  return live & (sees | low_bits(-fresh)) & kept;
}
}  // namespace lmx::attention
