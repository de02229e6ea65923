// csrc/layerskip/amx.h: bfloat16 rows of x times a block of weights in AMX tiles. Include it only
// from kernel files; below level amx nothing uses tiles.
//
// A tile is 16 rows of 64 bytes. 16 weight rows of 32 k, read as they lie in memory, times 32 k of
// 16 rows of x, pairs of k side by side, give 16 x 16 outputs. Every output has one running sum: it
// begins at 0 and takes 32 k at a time, in ascending order. Of those TDPBF16PS sums the even and
// the odd ones apart, by fma from 0, adds the two and adds that to the output; subnormals, of
// bfloat16 as of float32, are zeros. All this is the same for any number of rows: rows of x that
// are not there, and what lies beyond N and K, are zeros. Storing a sum and loading it again
// changes no bit. Source: Intel, Instruction Set Extensions Programming Reference 319433,
// TDPBF16PS.
#pragma once
#include <atomic>

#include "../common/amx.h"
#include "block.h"

namespace lmx::layerskip::LMX_ISA {
struct BlockSize {
  int n;      // weight rows
  int64_t m;  // rows of x
};

#if defined(__AMX_BF16__)
constexpr int kTileRows = kAmxRows, kTileK = kAmxK, kTileFloats = kAmxFloats;
constexpr int kTileBytes = kAmxBytes;
constexpr int kPassRows = 2 * kTileRows;  // of weights and of x: four tiles of sums
constexpr int64_t kRunK = 256;  // columns of a part: 32 rows of x stay in first-level cache

inline bool uses_tiles(const Weights& w) { return w.dtype == DType::bf16; }

// Where the rows of x leave the second-level cache, more weight rows meet each of them.
inline BlockSize block_size(const Weights& w, int64_t num_active) {
  constexpr int64_t kCached = 1 << 20;
  if (!uses_tiles(w)) return {kBlockN, kBlockM};
  return {num_active * w.k * int64_t{sizeof(Bf16)} > kCached ? kMaxBlockN : kBlockN, kMaxBlockM};
}

// ---- weights that are not tiles as they lie in memory -----------------------------------------
// 32 floats, rounded to nearest even; none of them is subnormal.
inline void store_bf16(Bf16* to, const Step (&s)[2]) {
#if defined(__AVX512BF16__)
  const __m512bh both = _mm512_cvtne2ps_pbh(s[1].reg[0].raw, s[0].reg[0].raw);
  _mm512_storeu_si512(to, reinterpret_cast<const __m512i&>(both));
#else
  float wide[kTileK];
  for (int h = 0; h < 2; ++h) store_step(wide + h * kStep, s[h]);
  for (int i = 0; i < kTileK; ++i) to[i] = from_float<Bf16>(wide[i]);
#endif
}

template <Format kFormat>
void stage_blocks(const uint8_t* from, int64_t n, Bf16* to) {
  for (int64_t i = 0; i < n; i += kBlockWeights, from += unit_bytes(kFormat, DType::bf16)) {
    Step s[2];
    block_values<kFormat>(from, s);
    store_bf16(to + i, s);
  }
}

inline void stage_bytes(const int8_t* from, int64_t n, Bf16* to) {
  for (int64_t i = 0; i < n; i += kTileK) {
    int8_t tail[kTileK] = {};
    const int8_t* source = from + i;
    if (n - i < kTileK) {
      std::copy_n(source, n - i, tail);
      source = tail;
    }
    store_bf16(to + i, {load_step(source), load_step(source + kStep)});
  }
}

// n weights of a row become bfloat16, with zeros behind them up to a multiple of 32.
inline void stage_row(Format format, const char* from, int64_t n, Bf16* to) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(from);
  switch (format) {
    case Format::dense:
      std::fill(std::copy_n(reinterpret_cast<const Bf16*>(from), n, to),
                to + ceil_div<int64_t>(n, kTileK) * kTileK, Bf16{});
      return;
    case Format::int8: return stage_bytes(reinterpret_cast<const int8_t*>(from), n, to);
    case Format::q8_0: return stage_blocks<Format::q8_0>(bytes, n, to);
    case Format::q4_0: return stage_blocks<Format::q4_0>(bytes, n, to);
    case Format::q4_1: return stage_blocks<Format::q4_1>(bytes, n, to);
  }
}

// A row of what is staged begins one line further round in the cache than the one before.
using Staged = Bf16[kMaxBlockN][kRunK + kTileK];

// What will be staged next is asked for: the rest of these rows, and the rows after the block.
inline void stage(const BlockOf& b, int64_t begin, int64_t n, Staged& to) {
  constexpr int64_t kLine = 64;
  const Weights& w = *b.weights;
  const int64_t skipped = row_bytes(w.format, w.dtype, begin);
  const int64_t taken = row_bytes(w.format, w.dtype, n);
  const int64_t ahead = begin + n < w.k ? taken : b.count * w.group[b.group].row_bytes - skipped;
  for (int i = 0; i < b.count; ++i) {
    const char* from = b.row(i) + skipped;
    for (int64_t j = 0; j < taken; j += kLine) _mm_prefetch(from + ahead + j, _MM_HINT_T1);
    stage_row(w.format, from, n, to[i]);
  }
  for (int i = b.count; i % kTileRows != 0; ++i) std::fill_n(to[i], kRunK, Bf16{});
  std::atomic_signal_fence(std::memory_order_seq_cst);  // a tile load is no read to the compiler
}

// ---- products ---------------------------------------------------------------------------------
// 32 or 16 weight rows times 32 or 16 rows of x, for some steps of 32 k.
struct Pass {
  const char* w;
  int64_t w_stride;
  const float* x[2];
  int64_t steps, ahead;  // ahead: how many bytes behind the weights the next ones lie, or 0
  bool first, last;
  float* out;  // [x row][kMaxBlockN]; until the last step each 16 x 16 of it is [weight row][x row]
};

// Tiles 0 to 3 are sums, of weight rows 0 and 16 with x row 0, then with x row 16; 4 and 5 are
// weights, 6 and 7 rows of x.
template <int kW, int kX, bool kOnce>
void add_steps(const Pass& p) {
  constexpr int kRows = kW * kTileRows;
  const char* w = p.w;
  const float* x0 = p.x[0];
  const float* x1 = p.x[1];
  const int64_t half = kTileRows * p.w_stride;
  for (int64_t s = 0; s < p.steps; ++s) {
    if (p.ahead)
      for (int i = 0; i < kRows; ++i) _mm_prefetch(w + p.ahead + i * p.w_stride, _MM_HINT_T1);
    if constexpr (kOnce) {
      _tile_stream_loadd(4, w, p.w_stride);
      if constexpr (kW == 2) _tile_stream_loadd(5, w + half, p.w_stride);
    } else {
      _tile_loadd(4, w, p.w_stride);
      if constexpr (kW == 2) _tile_loadd(5, w + half, p.w_stride);
    }
    _tile_loadd(6, x0, kTileBytes);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (kW == 2) _tile_dpbf16ps(1, 5, 6);
    if constexpr (kX == 2) {
      _tile_loadd(7, x1, kTileBytes);
      _tile_dpbf16ps(2, 4, 7);
      if constexpr (kW == 2) _tile_dpbf16ps(3, 5, 7);
    }
    w += kTileBytes, x0 += kTileFloats, x1 += kTileFloats;
  }
}

template <int kW, int kX>
void load_sums(float* out) {
  constexpr int64_t kStride = kMaxBlockN * sizeof(float), kNext = kTileRows * kMaxBlockN;
  _tile_loadd(0, out, kStride);
  if constexpr (kW == 2) _tile_loadd(1, out + kTileRows, kStride);
  if constexpr (kX == 2) _tile_loadd(2, out + kNext, kStride);
  if constexpr (kW == 2 && kX == 2) _tile_loadd(3, out + kNext + kTileRows, kStride);
}
template <int kW, int kX>
void store_sums(float* out, int64_t row_floats) {
  const int64_t stride = row_floats * int64_t{sizeof(float)}, next = kTileRows * row_floats;
  _tile_stored(0, out, stride);
  if constexpr (kW == 2) _tile_stored(1, out + kTileRows, stride);
  if constexpr (kX == 2) _tile_stored(2, out + next, stride);
  if constexpr (kW == 2 && kX == 2) _tile_stored(3, out + next + kTileRows, stride);
}

template <int kW, int kX, bool kOnce>
void multiply_pass(const Pass& p) {
  if (p.first) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  } else {
    load_sums<kW, kX>(p.out);
  }
  add_steps<kW, kX, kOnce>(p);
  if (!p.last) return store_sums<kW, kX>(p.out, kMaxBlockN);
  alignas(64) float sums[kPassRows][kPassRows];
  store_sums<kW, kX>(sums[0], kPassRows);
  for (int x = 0; x < kX * kTileRows; x += 4)
    for (int i = 0; i < kW * kTileRows; i += 4) {
      const auto* from = &sums[x / kTileRows * kTileRows + i % kTileRows]
                              [i / kTileRows * kTileRows + x % kTileRows];
      transpose({from, from + kPassRows, from + 2 * kPassRows, from + 3 * kPassRows},
                p.out + x * kMaxBlockN + i, kMaxBlockN);
    }
}

// A pass over the rows of x from r on and the weight rows from i on.
inline void run_pass(const BlockOf& b, int64_t r, int i, bool once, const Pass& p) {
  using Run = void (*)(const Pass&);
  static constexpr Run kRuns[2][2][2] = {{{multiply_pass<1, 1, false>, multiply_pass<1, 1, true>},
                                          {multiply_pass<1, 2, false>, multiply_pass<1, 2, true>}},
                                         {{multiply_pass<2, 1, false>, multiply_pass<2, 1, true>},
                                          {multiply_pass<2, 2, false>, multiply_pass<2, 2, true>}}};
  kRuns[b.count - i > kTileRows][b.num_rows - r > kTileRows][once](p);
}

// out[r][i] = the dot product of row r of x and weight row first + i, without int8's scale.
inline void multiply_in_tiles(const BlockOf& b, Products& out) {
  constexpr int64_t kFarBytes = 1 << 18, kNearBytes = 1 << 10, kSize = sizeof(Bf16);
  const int64_t k = b.weights->k, whole = k / kTileK * kTileK;
  const int64_t stride = b.weights->group[b.group].row_bytes;
  alignas(64) Staged staged;
  const bool tiles = b.weights->format == Format::dense && b.count % kTileRows == 0;
  const bool once = tiles && b.num_rows <= kPassRows;
  for (int64_t begin = 0, end; begin < k; begin = end) {
    end = begin >= whole ? k : once ? whole : std::min(begin + kRunK, whole);
    const bool in_place = tiles && end <= whole;
    if (!in_place) stage(b, begin, end - begin, staged);
    // Asked for ahead: weights of the next pass, or where that is far, the same rows' next ones;
    // with many rows of x the next part, or the next block's first.
    int64_t ahead = kPassRows * stride <= kFarBytes ? kPassRows * stride : kNearBytes;
    if (!once) ahead = end < whole ? kRunK * kSize : b.count * stride - begin * kSize;
    for (int64_t r = 0; r < b.num_rows; r += kPassRows)
      for (int i = 0; i < b.count; i += kPassRows) {
        Pass p{in_place ? b.row(i) + begin * kSize : reinterpret_cast<const char*>(staged[i]),
               in_place ? stride : int64_t{sizeof staged[0]},
               {b.x[r], b.x[std::min(r + kTileRows, b.num_rows - 1)]},
               ceil_div<int64_t>(end - begin, kTileK),
               in_place && r == 0 ? ahead : 0,
               begin == 0,
               end == k,
               &out[r][i]};
        for (const float*& x : p.x) x += begin / kTileK * kTileFloats;
        run_pass(b, r, i, once && in_place, p);
      }
  }
  if (k == 0)
    for (int64_t r = 0; r < b.num_rows; ++r) std::fill_n(out[r], b.count, 0.f);
}
#else
inline bool uses_tiles(const Weights&) { return false; }
inline BlockSize block_size(const Weights&, int64_t) { return {kBlockN, kBlockM}; }
inline void multiply_in_tiles(const BlockOf&, Products&) {}
#endif
}  // namespace lmx::layerskip::LMX_ISA
