// csrc/layerskip/norm.cpp: CPU side of norm.h. Memory bound: a row is read from cache twice or
// three times.
#include "norm.h"

#include <vector>

#include "row_io.h"
#include "rows_cpu.h"

namespace lmx::layerskip::LMX_ISA {
namespace {
constexpr int kNormRegs = kNormLanes / kLanes;

// term(element, sum so far) over the row, by the tree of norm.h.
template <typename Term>
float row_sum(const float* x, int64_t width, const Term& term) {
  Vec sum[kNormRegs];
  for (Vec& v : sum) v = Vec(0.f);
  int64_t i = 0;
  for (; i + kNormLanes <= width; i += kNormLanes)
    for (int j = 0; j < kNormRegs; ++j) sum[j] = term(load(x + i + j * kLanes), sum[j]);
  float lane[kNormLanes];
  for (int j = 0; j < kNormRegs; ++j) store(lane + j * kLanes, sum[j]);
  for (int l = 0; i + l < width; ++l) lane[l] = term(x[i + l], lane[l]);
  for (int half = kNormLanes / 2; half > 0; half /= 2)
    for (int l = 0; l < half; ++l) lane[l] += lane[l + half];
  return lane[0];
}

float plain_sum(const float* x, int64_t width) {
  using exact::fma;
  return row_sum(x, width, [](auto v, auto sum) { return fma(v, decltype(v)(1.f), sum); });
}
float square_sum(const float* x, int64_t width) {
  using exact::fma;
  return row_sum(x, width, [](auto v, auto sum) { return fma(v, v, sum); });
}

template <typename T>
void norm_row(const NormParams& p, int64_t row, const float* gamma, const float* beta, float* x) {
  const auto* from = static_cast<const T*>(p.x.data) + row * p.x.stride;
  auto* to = static_cast<T*>(p.out.data) + row * p.out.stride;
  widen(from, p.width, x);
  if (p.centred) {
    const float mean = mean_of(plain_sum(x, p.width), p.width);
    for (int64_t i = 0; i < p.width; ++i) x[i] -= mean;
  }
  const float scale = inverse_deviation(square_sum(x, p.width), p.width, p.eps);
  if (beta)
    for (int64_t i = 0; i < p.width; ++i) x[i] = exact::fma(x[i] * scale, gamma[i], beta[i]);
  else
    for (int64_t i = 0; i < p.width; ++i) x[i] = x[i] * scale * gamma[i];
  narrow(x, p.width, to);
}

template <typename T>
void copy_row(const NormParams& p, int64_t row) {
  std::copy_n(static_cast<const T*>(p.x.data) + row * p.x.stride, p.width,
              static_cast<T*>(p.out.data) + row * p.out.stride);
}

// A group's norm weights as floats, kept from row to row.
class NormWeights {
 public:
  explicit NormWeights(const NormParams& p) : p_(p), gamma_(p.width), beta_(p.beta ? p.width : 0) {}
  void set(int32_t group) {
    if (group == group_) return;
    group_ = group;
    visit_dtype(p_.weight_dtype, [&](auto type) {
      using W = decltype(type);
      widen(static_cast<const W*>(p_.gamma) + group * p_.width, p_.width, gamma_.data());
      if (p_.beta) widen(static_cast<const W*>(p_.beta) + group * p_.width, p_.width, beta_.data());
    });
  }
  const float* gamma() const { return gamma_.data(); }
  const float* beta() const { return p_.beta ? beta_.data() : nullptr; }

 private:
  const NormParams& p_;
  int32_t group_ = -1;
  std::vector<float> gamma_, beta_;
};
}  // namespace

void norm_cpu(const NormParams& p) {
  check_groups(p.centred ? "skip_layernorm" : "skip_rmsnorm", p.groups, p.status);
  const int64_t grain = (1 << 14) / (p.width + 1) + 1;
  visit_dtype(p.x.dtype, [&](auto type) {
    using T = decltype(type);
    parallel_for(0, p.groups.num_rows, grain, [&](int64_t begin, int64_t end) {
      NormWeights weights(p);
      std::vector<float> x(p.width);
      for (int64_t row = begin; row < end; ++row) {
        const int32_t group = group_of(p.groups, row);
        if (group < 0) {
          copy_row<T>(p, row);
          continue;
        }
        weights.set(group);
        norm_row<T>(p, row, weights.gamma(), weights.beta(), x.data());
      }
    });
  });
}
}  // namespace lmx::layerskip::LMX_ISA
