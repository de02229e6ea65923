// csrc/layerskip/tiles.h: a few rows of x times a few weight rows, with all running sums in
// registers. Include it only from kernel files.
//
// Every output has sums of its own (steps.h), so its bits do not depend on the shape of the tile it
// is computed in, nor on where a long sum over k is put down and taken up again.
#pragma once
#include "steps.h"

// Loops over the registers of a tile: rolled up, the compiler would keep the sums in memory.
#define LMX_UNROLL _Pragma("GCC unroll 8")

namespace lmx::layerskip::LMX_ISA {
// The most rows of x in a tile, and for each number of them the number of weight rows: 12 of 16
// registers are sums at level v3, 24 of 32 at v4.
#if defined(__AVX512F__)
constexpr int kMaxX = 6;
constexpr int weight_rows(int) { return 4; }
#else
constexpr int kMaxX = 3;
constexpr int weight_rows(int x_rows) { return x_rows == 1 ? 4 : 2; }
#endif

template <int kW, int kX>
using Sums = Step[kW][kX];

inline void add_product(Step& sum, const Step& a, const Step& b) {
  LMX_UNROLL
  for (int i = 0; i < kRegs; ++i) sum.reg[i] = fma(a.reg[i], b.reg[i], sum.reg[i]);
}

// Few rows of x: the next kW weight rows, one cache line of each a step. Any address will do.
template <int kW>
struct NextRows {
  const char* row[kW];
  int64_t step;  // bytes

  void ask() {
    LMX_UNROLL
    for (int i = 0; i < kW; ++i) {
      _mm_prefetch(row[i], _MM_HINT_T1);
      row[i] += step;
    }
  }
};

// Many rows of x: the part of the weights that comes next, while this one is multiplied. Eight rows
// in turn, so that the hardware's own prefetcher sees as many streams: a core has too few buffers
// to reach the memory's speed by asking alone.
class NextPart {
 public:
  NextPart() = default;
  // `length` bytes of each of `num_rows` rows, in about `num_steps` steps.
  NextPart(const void* first, int64_t row_bytes, int64_t num_rows, int64_t length,
           int64_t num_steps)
      : at_(static_cast<const char*>(first)), row_bytes_(row_bytes) {
    lines_of_row_ = lines_left_ = ceil_div(length, kLine);
    rounds_left_ = ceil_div(num_rows, kRows) * lines_of_row_;
    num_steps_ = num_steps;
    num_lines_ = kRows * rounds_left_;
  }
  void ask() {  // at every step; evenly spread over them
    due_ += num_lines_;
    while (due_ >= num_steps_ && rounds_left_ > 0) {
      due_ -= num_steps_;
      ask_line();
    }
  }

 private:
  void ask_line() {
    _mm_prefetch(at_, _MM_HINT_T1);
    at_ += row_bytes_;
    if (++row_ < kRows) return;
    row_ = 0;
    at_ += kLine - kRows * row_bytes_;
    --rounds_left_;
    if (--lines_left_ > 0) return;
    lines_left_ = lines_of_row_;
    at_ += kRows * row_bytes_ - lines_of_row_ * kLine;
  }

  static constexpr int64_t kRows = 8, kLine = 64;
  const char* at_ = nullptr;
  int64_t row_bytes_ = 0, row_ = 0;
  int64_t lines_of_row_ = 0, lines_left_ = 0, rounds_left_ = 0;
  int64_t num_steps_ = 1, num_lines_ = 0, due_ = 0;
};

// Adds the products of k in [begin, end); `end` is a multiple of kStep or the end of the rows.
template <typename Next, typename T, int kW, int kX>
inline void add_products(const T* const (&w)[kW], const float* const (&x)[kX], int64_t begin,
                         int64_t end, Next& next, Sums<kW, kX>& sums) {
  Next ahead = next;  // in registers
  int64_t k = begin;
  for (; k + kStep <= end; k += kStep) {
    ahead.ask();
    LMX_UNROLL
    for (int r = 0; r < kRegs; ++r) {
      Vec ws[kW];
      LMX_UNROLL
      for (int i = 0; i < kW; ++i) ws[i] = in_register(load_part(w[i] + k, r));
      LMX_UNROLL
      for (int j = 0; j < kX; ++j) {
        const Vec xs = in_register(load(x[j] + k + r * kLanes));
        LMX_UNROLL
        for (int i = 0; i < kW; ++i) sums[i][j].reg[r] = fma(ws[i], xs, sums[i][j].reg[r]);
      }
    }
  }
  next = ahead;
  if (k >= end) return;
  LMX_UNROLL
  for (int i = 0; i < kW;
       ++i) {  // rows of x have zeros there; what follows a weight row is not its
    T tail[kStep] = {};
    std::copy(w[i] + k, w[i] + end, tail);
    const Step ws = load_step(tail);
    LMX_UNROLL
    for (int j = 0; j < kX; ++j) add_product(sums[i][j], ws, load_step(x[j] + k));
  }
}

// The same for blocks of 32 weights, which are expanded in registers.
template <Format kFormat, int kX>
inline void add_block_products(const uint8_t* w, const float* const (&x)[kX], int64_t k,
                               Sums<1, kX>& sums) {
  constexpr int64_t kBytes = unit_bytes(kFormat, DType::bf16);
  for (int64_t i = 0; i < k; i += kBlockWeights, w += kBytes) {
    Step ws[2];
    expand_block<kFormat>(w, ws);
    LMX_UNROLL
    for (int j = 0; j < kX; ++j) LMX_UNROLL
    for (int h = 0; h < 2; ++h) add_product(sums[0][j], ws[h], load_step(x[j] + i + h * kStep));
  }
}

// f(std::integral_constant<int, n>{}) for a tile's number of rows.
template <typename F>
inline void visit_rows(int n, const F& f) {
  switch (n) {
    case 1: return f(std::integral_constant<int, 1>{});
    case 2: return f(std::integral_constant<int, 2>{});
    case 3: return f(std::integral_constant<int, 3>{});
#if defined(__AVX512F__)
    case 4: return f(std::integral_constant<int, 4>{});
    case 5: return f(std::integral_constant<int, 5>{});
    case 6: return f(std::integral_constant<int, 6>{});
#endif
  }
}

// How many of the rows that are left go into the next tile, so that tiles are of much the same
// size.
inline int next_rows(int64_t left) {
  return static_cast<int>(ceil_div<int64_t>(left, ceil_div<int64_t>(left, kMaxX)));
}
}  // namespace lmx::layerskip::LMX_ISA
