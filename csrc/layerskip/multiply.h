// csrc/layerskip/multiply.h: the rows of a group times a block of its weight rows. Include it only
// from kernel files.
//
// One block is small enough that all rows of x meet it in cache: weights come from memory once.
#pragma once
#include <vector>

#include "amx.h"
#include "tiles.h"

namespace lmx::layerskip::LMX_ISA {
// Columns of a part: a tile of rows of x, and the weights that pass, fit the first-level cache.
template <typename T>
constexpr int64_t kPartK = (sizeof(T) == 4 ? 3072 : 6144) / kMaxX;
constexpr int64_t kBlockExpanded = kPartK<float>;  // columns of a block that become floats

// The order in which a weight's format wants the rows of x.
inline Order order_of(const Weights& w) {
  if (uses_tiles(w)) return Order::tiles;
  return w.format == Format::dense && w.dtype == DType::bf16 ? kBf16Order : Order::natural;
}

// Scratch of one thread.
struct MultiplySpace {
  std::vector<float> expanded;  // [kBlockN][kBlockExpanded]
  std::vector<float> sums;      // [kBlockM][kBlockN][kStep]
  alignas(64) Products products, others;
};

// A range of k, and whether sums begin and end there.
struct Range {
  int64_t begin, end;
  bool first, last;
};
// The i-th of n parts of [0, k): equal but for rounding to whole steps.
inline Range part_of(int64_t k, int64_t i, int64_t n) {
  const int64_t length = ceil_div<int64_t>(ceil_div<int64_t>(k, n), kStep) * kStep;
  return {std::min(i * length, k), std::min((i + 1) * length, k), i == 0, i == n - 1};
}

// kW weight rows, w_stride apart, and kX rows of x. Sums that begin before the range or go on
// behind it are kept meanwhile; where the range is whole there are none.
template <bool kWhole, int kW, int kX, typename T, typename Next>
void multiply_tile(const T* w, int64_t w_stride, const float* const* x_rows, const Range& range,
                   Next& next, Order order, float* kept, float* out) {
  Sums<kW, kX> sums;
  const T* ws[kW];
  const float* xs[kX];
  LMX_UNROLL
  for (int i = 0; i < kW; ++i) ws[i] = w + i * w_stride;
  LMX_UNROLL
  for (int j = 0; j < kX; ++j) xs[j] = x_rows[j];
  const auto each_sum = [&](const auto& f) {
    LMX_UNROLL
    for (int i = 0; i < kW; ++i) {
      LMX_UNROLL
      for (int j = 0; j < kX; ++j) f(sums[i][j], i, j);
    }
  };
  if (kWhole || range.first)
    each_sum([](Step& sum, int, int) { sum = zero_step(); });
  else if constexpr (!kWhole)
    each_sum([&](Step& sum, int i, int j) { sum = load_step(kept + (j * kBlockN + i) * kStep); });
  add_products(ws, xs, range.begin, range.end, next, sums);
  if (kWhole || range.last)
    each_sum(
        [&](const Step& sum, int i, int j) { out[j * kMaxBlockN + i] = fold_step(sum, order); });
  else if constexpr (!kWhole)
    each_sum(
        [&](const Step& sum, int i, int j) { store_step(kept + (j * kBlockN + i) * kStep, sum); });
}

// f(i, std::integral_constant<int, n>{}) for tiles of n weight rows that cover [first, last).
template <int kW, typename F>
void for_weight_rows(int first, int last, const F& f) {
  int i = first;
  for (; i + kW <= last; i += kW) f(i, std::integral_constant<int, kW>{});
  for (; i < last; ++i) f(i, std::integral_constant<int, 1>{});
}

// One tile of rows of x: bound by memory, so the rows of the next tile are asked for. They are
// those that follow, in this block or the next.
template <typename T>
void multiply_few(const T* w, int64_t w_stride, const BlockOf& b, Order order, Products& out) {
  const Range all{0, b.weights->k, true, true};
  visit_rows(static_cast<int>(b.num_rows), [&](auto x_rows) {
    constexpr int kX = decltype(x_rows)::value;
    for_weight_rows<weight_rows(kX)>(0, b.count, [&](int i, auto rows) {
      constexpr int kW = decltype(rows)::value;
      NextRows<kW> next{{}, kStep * sizeof(T)};
      for (int j = 0; j < kW; ++j)
        next.row[j] = reinterpret_cast<const char*>(w + (i + kW + j) * w_stride);
      multiply_tile<true, kW, kX>(w + i * w_stride, w_stride, b.x, all, next, order, nullptr,
                                  &out[0][i]);
    });
  });
}

// Many rows of x: for a part of k, a tile of them stays in the first-level cache while the block's
// weights pass from the second. Meanwhile the same rows of the next part or block, `ahead` elements
// behind, are asked for.
template <typename T>
void multiply_part(const T* w, int64_t w_stride, const BlockOf& b, const Range& range,
                   int64_t ahead, Order order, float* kept, Products& out) {
  constexpr int64_t kSize = sizeof(T);
  const int64_t num_tiles = ceil_div<int64_t>(b.num_rows, kMaxX), width = range.end - range.begin;
  const auto row_of = [&](int64_t tile) { return b.num_rows * tile / num_tiles; };
  const int64_t num_steps =
      num_tiles * ceil_div(b.count, weight_rows(kMaxX)) * ceil_div<int64_t>(width, kStep);
  NextPart next;
  if (ahead != 0)
    next = {w + range.begin + ahead, w_stride * kSize, b.count, width * kSize, num_steps};
  for (int64_t t = 0; t < num_tiles; ++t) {
    const int64_t r = row_of(t);
    visit_rows(static_cast<int>(row_of(t + 1) - r), [&](auto x_rows) {
      constexpr int kX = decltype(x_rows)::value;
      for_weight_rows<weight_rows(kMaxX)>(0, b.count, [&](int i, auto rows) {
        constexpr int kW = decltype(rows)::value;
        multiply_tile<false, kW, kX>(w + i * w_stride, w_stride, b.x + r, range, next, order,
                                     kept + (r * kBlockN + i) * kStep, &out[r][i]);
      });
    });
  }
}

template <typename T>
void multiply_parts(const T* w, int64_t w_stride, const BlockOf& b, const Range& block, bool stored,
                    Order order, float* kept, Products& out) {
  const int64_t k = block.end - block.begin;
  const int64_t num_parts = std::max<int64_t>(1, ceil_div(k, kPartK<T>));
  for (int64_t part = 0; part < num_parts; ++part) {
    Range range = part_of(k, part, num_parts);
    const bool more = part + 1 < num_parts;
    const int64_t ahead = more ? range.end - range.begin : b.count * w_stride - range.begin;
    range.begin += block.begin, range.end += block.begin;
    range.first &= block.first, range.last &= block.last;
    multiply_part(w, w_stride, b, range, stored ? ahead : 0, order, kept, out);
  }
}

template <typename T>
void multiply_stored(const BlockOf& b, Order order, MultiplySpace& space, Products& out) {
  const int64_t stride = b.weights->group[b.group].row_bytes / static_cast<int64_t>(sizeof(T));
  const auto* w = reinterpret_cast<const T*>(b.row(0));
  if (b.num_rows <= kMaxX) return multiply_few(w, stride, b, order, out);
  space.sums.resize(kBlockM * kBlockN * kStep);
  multiply_parts(w, stride, b, {0, b.weights->k, true, true}, true, order, space.sums.data(), out);
}

template <Format kFormat>
void multiply_few_blocks(const BlockOf& b, Products& out) {
  for (int64_t r = 0; r < b.num_rows;) {
    const int taken = std::min<int>(next_rows(b.num_rows - r), 3);
    visit_rows(taken, [&](auto x_rows) {
      constexpr int kX = decltype(x_rows)::value;
      const float* x[kX];
      LMX_UNROLL
      for (int j = 0; j < kX; ++j) x[j] = b.x[r + j];
      for (int i = 0; i < b.count; ++i) {
        Sums<1, kX> sums;
        for (Step& s : sums[0]) s = zero_step();
        add_block_products<kFormat>(reinterpret_cast<const uint8_t*>(b.row(i)), x, b.weights->k,
                                    sums);
        LMX_UNROLL
        for (int j = 0; j < kX; ++j) out[r + j][i] = fold_step(sums[0][j], Order::natural);
      }
    });
    r += taken;
  }
}

// Many rows: the block's weights are expanded once, into cache.
template <Format kFormat>
void multiply_many_blocks(const BlockOf& b, MultiplySpace& space, Products& out) {
  constexpr int64_t kBytes = unit_bytes(kFormat, DType::bf16);
  const int64_t k = b.weights->k;
  space.expanded.resize(kBlockN * kBlockExpanded);
  space.sums.resize(kBlockM * kBlockN * kStep);
  for (int64_t begin = 0; begin < k; begin += kBlockExpanded) {
    const int64_t end = std::min(begin + kBlockExpanded, k);
    for (int i = 0; i < b.count; ++i) {
      const auto* from =
          reinterpret_cast<const uint8_t*>(b.row(i)) + begin / kBlockWeights * kBytes;
      float* to = space.expanded.data() + i * kBlockExpanded;
      for (int64_t j = begin; j < end; j += kBlockWeights, from += kBytes, to += kBlockWeights) {
        Step ws[2];
        expand_block<kFormat>(from, ws);
        LMX_UNROLL
        for (int h = 0; h < 2; ++h) store_step(to + h * kStep, ws[h]);
      }
    }
    multiply_parts(space.expanded.data() - begin, kBlockExpanded, b,
                   {begin, end, begin == 0, end == k}, false, Order::natural, space.sums.data(),
                   out);
  }
}

template <Format kFormat>
void multiply_blocks(const BlockOf& b, MultiplySpace& space, Products& out) {
  if (b.num_rows <= 4 || b.weights->k == 0)
    multiply_few_blocks<kFormat>(b, out);
  else
    multiply_many_blocks<kFormat>(b, space, out);
}

// By fma: whatever does not go through tiles.
inline void multiply_by_fma(const BlockOf& b, MultiplySpace& space, Products& out) {
  const Weights& w = *b.weights;
  switch (w.format) {
    case Format::dense:
      return visit_dtype(
          w.dtype, [&](auto type) { multiply_stored<decltype(type)>(b, order_of(w), space, out); });
    case Format::int8: return multiply_stored<int8_t>(b, Order::natural, space, out);
    case Format::q8_0: return multiply_blocks<Format::q8_0>(b, space, out);
    case Format::q4_0: return multiply_blocks<Format::q4_0>(b, space, out);
    case Format::q4_1: return multiply_blocks<Format::q4_1>(b, space, out);
  }
}

// out[r][i] = the dot product of row r of x and weight row first + i.
inline void multiply(const BlockOf& b, MultiplySpace& space, Products& out) {
  const Weights& w = *b.weights;
  if (uses_tiles(w))
    multiply_in_tiles(b, out);
  else
    multiply_by_fma(b, space, out);
  if (w.format != Format::int8) return;
  const float* scale = w.scale + b.group * w.n + b.first;
  for (int64_t r = 0; r < b.num_rows; ++r)
    for (int i = 0; i < b.count; ++i) out[r][i] *= scale[i];
}
}  // namespace lmx::layerskip::LMX_ISA
