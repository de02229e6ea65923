// csrc/attention/keys_cpu.h: the keys of a chunk, and which of them a row sees. Include it only
// from kernel files.
#pragma once
#include <algorithm>

#include "lanes.h"
#include "paged.h"
#include "sight.h"

namespace lmx::attention::LMX_ISA {
constexpr int kWords = kChunk / 32;
using Sight = uint32_t[kWords];  // bit j of the chunk's keys: a row sees key j

// A chunk's keys that are not dead, in order. Behind them the last one is repeated up to a multiple
// of 8.
template <typename T>
struct Keys {
  int count;         // of them
  int first_fresh;   // the first of them that is fresh; count: none is
  int64_t fresh_id;  // that one's row of the fresh block
  int32_t least_pos, largest_pos;
  Sight kept;  // key_keep of the head, all ones without
  alignas(64) int32_t pos[kChunk];
  const T* key[kChunk];
  const T* value[kChunk];
};

inline int64_t page_of(const PagedParams& p, int64_t b, int64_t slot) {
  return p.block_table[b * p.table_stride + slot / p.page_size];
}

template <typename T>
void take_slots(const PagedParams& p, int64_t b, int64_t head, KeyRange range, Keys<T>& keys) {
  const T* pages = static_cast<const T*>(p.pages) + head * p.page_head_stride;
  const auto take = [&](int at, const T* from, int32_t pos) {
    keys.pos[at] = pos;
    keys.key[at] = from;
    keys.value[at] = from + p.value_offset;
  };
  for (int64_t slot = range.begin; slot < range.end;) {
    const int64_t first = slot % p.page_size, page = page_of(p, b, slot);
    const int count = static_cast<int>(std::min(p.page_size - first, range.end - slot));
    const T* from = pages + page * p.page_stride + first * p.head_dim;
    if (!p.slot_pos) {
      const int32_t pos = static_cast<int32_t>(slot);
      for (int i = 0; i < count; ++i) take(keys.count + i, from + i * p.head_dim, pos + i);
      keys.count += count;
    } else {
      for (int i = 0; i < count; ++i) {
        const int32_t pos = slot_position(p, b, slot + i);
        take(keys.count, from + i * p.head_dim, pos);
        keys.count += pos >= 0;
      }
    }
    slot += count;
  }
}

template <typename T>
void take_fresh(const PagedParams& p, const Sequence& s, int64_t head, KeyRange range,
                Keys<T>& keys) {
  keys.first_fresh = keys.count;
  keys.fresh_id = range.begin - s.num_slots;
  const auto row_of = [&](const Heads& h, int64_t row) {
    return static_cast<const T*>(h.data) + row * h.row_stride + head * h.head_stride;
  };
  for (int64_t e = range.begin; e < range.end; ++e, ++keys.count) {
    const int64_t row = s.first_k + e - s.num_slots;
    keys.pos[keys.count] = p.key_pos[row];
    keys.key[keys.count] = row_of(p.key, row);
    keys.value[keys.count] = row_of(p.value, row);
    if (p.key_keep && !p.key_keep[row * p.num_kv_heads + head])
      keys.kept[keys.count / 32] &= ~(1u << keys.count % 32);
  }
}

// Keys [range.begin, range.end) of sequence b, at most kChunk.
template <typename T>
void collect(const PagedParams& p, const Sequence& s, int64_t b, int64_t head, KeyRange range,
             Keys<T>& keys) {
  keys.count = 0;
  std::fill_n(keys.kept, kWords, ~0u);
  const int64_t border = std::clamp(s.num_slots, range.begin, range.end);
  take_slots(p, b, head, {range.begin, border}, keys);
  take_fresh(p, s, head, {border, range.end}, keys);
  keys.least_pos = INT32_MAX, keys.largest_pos = INT32_MIN;
  for (int j = keys.count; j % 8 != 0; ++j) {
    keys.key[j] = keys.key[j - 1];
    keys.value[j] = keys.value[j - 1];
  }
  for (int j = 0; j < keys.count; ++j) {
    keys.least_pos = std::min(keys.least_pos, keys.pos[j]);
    keys.largest_pos = std::max(keys.largest_pos, keys.pos[j]);
  }
}

// Whether every row whose position is in [least, largest] sees all the keys / none of them.
template <typename T>
bool sees_all(const PagedParams& p, const Keys<T>& keys, int64_t least, int64_t largest) {
  return keys.first_fresh == keys.count && (!p.causal || keys.largest_pos <= least) &&
         (p.window < 0 || largest - keys.least_pos < p.window || keys.largest_pos < p.num_sinks);
}
template <typename T>
bool sees_none(const PagedParams& p, const Keys<T>& keys, int64_t least, int64_t largest) {
  if (keys.count == 0 || (p.causal && keys.least_pos > largest)) return true;
  return p.window >= 0 && least - keys.largest_pos >= p.window && keys.least_pos >= p.num_sinks;
}

// Bit j - first for the keys [first, first + 32) that row i may see by position.
template <typename T>
uint32_t allowed_bits(const PagedParams& p, const Keys<T>& keys, int first, int64_t query_pos) {
  uint32_t bits = 0;
  const int last = std::min(keys.count, first + 32);
  for (int j = first; j < last; ++j)
    bits |= static_cast<uint32_t>(allowed(p, query_pos, keys.pos[j])) << (j - first);
  return bits;
}

// What row i of the sequence sees of the chunk.
template <typename T>
void look(const PagedParams& p, const Sequence& s, const Keys<T>& keys, int64_t i, Sight& sight) {
  const int64_t query_pos = p.query_pos[s.first_q + i];
  const int64_t own = p.key_keep ? own_key(p, s, i) - keys.fresh_id + keys.first_fresh : -1;
  const uint32_t* ancestors =
      p.ancestors ? p.ancestors + (s.first_q + i) * p.ancestor_words : nullptr;
  for (int w = 0; w < kWords; ++w) {
    const int first = 32 * w;
    sight[w] = 0;
    if (first >= keys.count) continue;
    uint32_t bits = allowed_bits(p, keys, first, query_pos);
    if (keys.first_fresh < std::min(first + 32, keys.count)) {
      const int64_t fresh = keys.fresh_id + first - keys.first_fresh;  // of bit 0; may be below 0
      uint32_t sees = ~0u;
      if (ancestors) {
        sees = bits_at(ancestors, p.ancestor_words, fresh);
      } else if (p.causal) {
        const int64_t seen = s.num_k - s.num_q + i + 1 - fresh;  // how many, from bit 0 on
        sees = low_bits(seen);
      }
      const int slots = std::max(keys.first_fresh - first, 0);  // below 32
      bits &= sees | low_bits(slots);
    }
    uint32_t kept = keys.kept[w];
    if (own >= first && own < first + 32) kept |= 1u << (own - first);
    sight[w] = bits & kept;
  }
}
}  // namespace lmx::attention::LMX_ISA
