// csrc/layerskip/gemm.cpp: CPU side of gemm.h. For few rows bound by the weights' bytes, each read
// once; for many by fma. Blocks of 32 weight rows are shared out to the threads.
#include "gemm.h"

#include "blocks_cpu.h"
#include "row_io.h"

namespace lmx::layerskip::LMX_ISA {
namespace {
template <typename T>
T* element(const Matrix& m, int64_t row, int64_t column) {
  return static_cast<T*>(m.data) + row * m.stride + column;
}

// What lies in a piece of a row becomes floats, and the other way round.
void read(const Matrix& m, int64_t row, int64_t column, int64_t n, float* to) {
  visit_dtype(m.dtype, [&](auto type) { widen(element<decltype(type)>(m, row, column), n, to); });
}
void write(const Matrix& m, int64_t row, int64_t column, int64_t n, const float* from) {
  visit_dtype(m.dtype,
              [&](auto type) { narrow(from, n, element<decltype(type)>(m, row, column)); });
}

// The sums of one row and up to kMaxBlockN columns become outputs.
void finish_row(const GemmParams& p, int64_t row, int64_t column, int count, const float* bias,
                float* acc) {
  if (bias)
    for (int i = 0; i < count; ++i) acc[i] += bias[i];
  if (p.activation != Activation::none)
    visit_activation(p.activation, [&](auto act) {
      for (int i = 0; i < count; ++i) acc[i] = act(acc[i]);
    });
  if (p.row_scale || p.residual.data) {
    float residual[kMaxBlockN];
    std::fill_n(residual, count, 0.f);
    if (p.residual.data) read(p.residual, row, column, count, residual);
    const float scale = p.row_scale ? p.row_scale[row] : 1.f;
    for (int i = 0; i < count; ++i) acc[i] = finish(acc[i], scale, residual[i]);
  }
  write(p.out, row, column, count, acc);
}

void skip_row(const GemmParams& p, int64_t row) {
  if (p.skipped == Skipped::keep) return;
  const int64_t n = p.weights.n;
  visit_dtype(p.out.dtype, [&](auto type) {
    using T = decltype(type);
    T* out = element<T>(p.out, row, 0);
    if (p.skipped == Skipped::zero) {
      std::fill_n(out, n, T{});
    } else if (p.residual.dtype == p.out.dtype) {  // all bits, those of a NaN too
      const T* from = element<T>(p.residual, row, 0);
      if (from != out) std::copy_n(from, n, out);
    } else {
      float piece[kBlockN];
      for (int64_t i = 0; i < n; i += kBlockN) {
        const int64_t count = std::min<int64_t>(kBlockN, n - i);
        read(p.residual, row, i, count, piece);
        narrow(piece, count, out + i);
      }
    }
  });
}

void bias_of(const GemmParams& p, int64_t group, int64_t first, int count, float* to) {
  visit_dtype(p.bias_dtype, [&](auto type) {
    widen(static_cast<const decltype(type)*>(p.bias) + group * p.weights.n + first, count, to);
  });
}
}  // namespace

void gemm_cpu(const GemmParams& p) {
  const Weights& w = p.weights;
  check_plan("skip_gemm", p.plan, p.num_rows, w.num_groups);
  const ActiveRows rows(p.x, w.k, order_of(w), p.plan, p.num_rows, w.num_groups);
  const auto live = live_groups("skip_gemm", "weight", w, rows, p.status);
  for (int64_t i = rows.num_active(); i < p.num_rows; ++i) skip_row(p, rows.row_id(i));
  for (int64_t g = 0; g < w.num_groups; ++g)
    if (rows.begin(g) < rows.end(g) && !std::binary_search(live.begin(), live.end(), g))
      for (int64_t i = rows.begin(g); i < rows.end(g); ++i) skip_row(p, rows.row_id(i));
  for_blocks(w, rows, live,
             [&](int64_t g, int64_t first, int count, int64_t row, int64_t num_rows,
                 MultiplySpace& space) {
               float bias[kMaxBlockN];
               if (p.bias) bias_of(p, g, first, count, bias);
               multiply({&w, g, first, count, rows.at(row), num_rows}, space, space.products);
               for (int64_t r = 0; r < num_rows; ++r)
                 finish_row(p, rows.row_id(row + r), first, count, p.bias ? bias : nullptr,
                            space.products[r]);
             });
}
}  // namespace lmx::layerskip::LMX_ISA
