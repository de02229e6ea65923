// csrc/attention/split.h: how paged.cu shares out its work, and the workspace that this takes.
// Nothing here changes a bit of the results: see attend.cuh.
#pragma once
#include "paged.h"

namespace lmx::attention {
constexpr int kFewRows = 16, kManyRows = 64;  // query rows of a tile

struct Split {
  int tile_rows;                  // kFewRows or kManyRows
  int width;                      // head_dim padded to 64, 128 or 256
  int64_t max_tiles, max_chunks;  // of a sequence
  bool by_chunk;  // a block of threads has one chunk of keys and not all; then chunks are added
  int64_t num_seqs, num_kv_heads;

  LMX_HD int64_t num_units() const {
    return num_seqs * num_kv_heads * max_tiles * (by_chunk ? max_chunks : 1);
  }
  // Where the sums of a unit lie among all: values [tile_rows, width], then two floats a row.
  LMX_HD int64_t place(int64_t b, int64_t head, int64_t tile, int64_t chunk) const {
    return ((b * num_kv_heads + head) * max_tiles + tile) * max_chunks + chunk;
  }
  LMX_HD int64_t unit_floats() const { return int64_t{tile_rows} * (width + 2); }
};

inline Split split_of(const PagedParams& p) {
  // So many keep a large GPU busy without a split, which costs the bytes of the chunks' sums: in
  // tiles of few rows at most an eighth of those of keys and values, of many half.
  constexpr int64_t kManySmallUnits = 2048, kManyLargeUnits = 256;
  constexpr int64_t kMaxSumFloats = int64_t{1} << 26;
  const auto least = [](int64_t a, int64_t b) { return a < b ? a : b; };
  const int64_t rows = least(p.max_q, p.num_q) * (p.num_heads / p.num_kv_heads);
  const int64_t slots =
      p.part == Part::fresh ? kChunk : least(p.max_slots, p.table_width * p.page_size);
  const int64_t fresh = p.part == Part::prefix ? 0 : least(p.num_k, kMaxFresh);
  Split s{};
  s.tile_rows = rows <= kFewRows || p.dtype == DType::f32 ? kFewRows : kManyRows;
  s.width = p.head_dim <= 64 ? 64 : p.head_dim <= 128 ? 128 : 256;
  s.max_tiles = ceil_div<int64_t>(rows, s.tile_rows);
  s.max_chunks = ceil_div<int64_t>(slots + fresh, kChunk);
  s.num_seqs = p.num_seqs, s.num_kv_heads = p.num_kv_heads;
  const int64_t units = s.num_units();
  const int64_t many = s.tile_rows == kFewRows ? kManySmallUnits : kManyLargeUnits;
  s.by_chunk =
      s.max_chunks > 1 && units < many && units * s.max_chunks * s.unit_floats() <= kMaxSumFloats;
  return s;
}
// A flag per sequence, then the sums of all units.
LMX_HD int64_t sums_offset(const PagedParams& p) { return ceil_div<int64_t>(p.num_seqs, 4) * 4; }
inline int64_t space_floats(const PagedParams& p) {
  const Split s = split_of(p);
  return sums_offset(p) + (s.by_chunk ? s.num_units() * s.unit_floats() : 0);
}

// The sums of every tile of rows; one source file per dtype, so that they compile side by side.
void attend_f32(const PagedParams& p, const Split& split, CUstream_st* stream);
void attend_f16(const PagedParams& p, const Split& split, CUstream_st* stream);
void attend_bf16(const PagedParams& p, const Split& split, CUstream_st* stream);
}  // namespace lmx::attention
