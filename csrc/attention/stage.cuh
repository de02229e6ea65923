// csrc/attention/stage.cuh: rows of heads from pages and from the fresh block to shared memory.
//
// A tile is kKeys keys [kKeys t, kKeys t + kKeys) of a sequence. Its rows lie kPitch bytes apart,
// their 16-byte units exclusive-or'ed with the row, so that eight rows of a unit are in eight
// different banks. What is not a key that counts is zeros and is not read.
#pragma once
#include "elements.cuh"
#include "paged.h"

namespace lmx::attention {
template <int kPitch>
__device__ __forceinline__ int place(int row, int unit) {
  return row * kPitch + (unit ^ row % 8) * 16;
}

// kRows rows of kPitch bytes; row(i) is the address of row i, null for zeros, of which the first
// `bytes`, a multiple of 16, exist.
template <typename T, int kRows, int kPitch, int kThreads, typename RowAt>
__device__ __forceinline__ void copy_rows(char* to, int bytes, const RowAt& row) {
  constexpr int kUnits = kPitch / 16;
#pragma unroll 4
  for (int e = threadIdx.x; e < kRows * kUnits; e += kThreads) {
    const int r = e / kUnits, unit = e % kUnits;
    const char* from = row(r);
    const bool valid = from && unit * 16 < bytes;
    char* at = to + place<kPitch>(r, unit);
    from = valid ? from + unit * 16 : nullptr;
    if (in_sixteens(from))
      ptx::cp_async16(at, from, valid);
    else
      *reinterpret_cast<uint4*>(at) = load_sixteen(reinterpret_cast<const T*>(from)).whole();
  }
}

// What is known of a tile before its keys are there.
template <int kKeys>
struct KeyTile {
  static constexpr int kWords = kKeys / 32;
  int32_t index;
  const char *key[kKeys], *value[kKeys];  // rows; null: no key, or a dead one
  int32_t pos[kKeys];
  uint32_t live[kWords], kept[kWords];  // bits: not null; key_keep, all ones without
};

// The same of one key, in the registers of one thread.
struct KeyPlace {
  const char *key, *value;
  int32_t pos;
  bool kept;
};

template <typename T>
__device__ __forceinline__ const char* row_at(const Heads& h, int64_t row, int64_t head) {
  return reinterpret_cast<const char*>(static_cast<const T*>(h.data) + row * h.row_stride +
                                       head * h.head_stride);
}

// Key e of sequence b. Nothing is read for one outside `range`.
template <typename T>
__device__ __forceinline__ KeyPlace locate(const PagedParams& p, const Sequence& s, int64_t b,
                                           int64_t head, KeyRange range, int64_t e) {
  KeyPlace k{nullptr, nullptr, 0, true};
  if (e < range.begin || e >= range.end) return k;
  if (e >= s.num_slots) {
    const int64_t row = s.first_k + e - s.num_slots;
    k.pos = p.key_pos[row];
    k.kept = !p.key_keep || p.key_keep[row * p.num_kv_heads + head];
    k.key = row_at<T>(p.key, row, head);
    k.value = row_at<T>(p.value, row, head);
    return k;
  }
  k.pos = slot_position(p, b, e);
  if (k.pos < 0) return k;
  const auto slot = static_cast<uint32_t>(e), page_size = static_cast<uint32_t>(p.page_size);
  const int64_t page = p.block_table[b * p.table_stride + slot / page_size];
  const T* from = static_cast<const T*>(p.pages) + page * p.page_stride +
                  head * p.page_head_stride + slot % page_size * p.head_dim;
  k.key = reinterpret_cast<const char*>(from);
  k.value = reinterpret_cast<const char*>(from + p.value_offset);
  return k;
}

// Thread i < kKeys has key i of the tile; warps as a whole call.
template <int kKeys>
__device__ __forceinline__ void put(KeyTile<kKeys>& tile, const KeyPlace& k) {
  const int i = threadIdx.x;
  tile.key[i] = k.key, tile.value[i] = k.value, tile.pos[i] = k.pos;
  const uint32_t live = __ballot_sync(~0u, k.key != nullptr), kept = __ballot_sync(~0u, k.kept);
  if (i % 32 == 0) tile.live[i / 32] = live, tile.kept[i / 32] = kept;
}
}  // namespace lmx::attention
