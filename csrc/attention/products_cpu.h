// csrc/attention/products_cpu.h: the two products of attention, of rows kept as floats with keys
// and values as they lie in memory. Include it only from kernel files.
//
// Each result is summed in one order, see lanes.h and add_values, however rows and keys are grouped
// here: the groups keep eight to twelve running sums in registers.
#pragma once
#include "lanes.h"

namespace lmx::attention::LMX_ISA {
// Of rows that are read later a line is asked for between products, again and again: many at once
// would fill the queue that the products' own loads need. Null: nothing is asked for.
template <typename T>
using Ahead = const T* const*;
template <typename T>
constexpr int kLine = 64 / sizeof(T);
template <typename T>
void ask(const T* p) {
  _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0);
}

// The compiler would rather load a factor again for each of its products.
inline void in_register(__m256& v) { asm("" : "+x"(v)); }

// Elements [d, d + 16) of a row of `dim`, zeros behind its end.
template <typename T>
Step load_elements(const T* row, int d, int dim) {
  return dim - d < kStep ? load_part(row + d, dim - d) : load_step(row + d);
}

// ---- scores -----------------------------------------------------------------------------------
// sum[i][k] += the products of a step of query row i and one of key k, half of it after the other:
// the sums leave no room for more.
template <int kRows, int kKeys, typename T>
[[gnu::always_inline]] inline void add_step(const float* query, int64_t width,
                                            const T* const (&keys)[kKeys], int64_t d,
                                            __m256 (&sum)[kRows][kKeys]) {
  for (int h = 0; h < 2; ++h) {
    __m256 q[kRows];
    if constexpr (kRows == 1) q[0] = _mm256_loadu_ps(query + d + 8 * h);
    __m256 key[kKeys];
    for (int k = 0; k < kKeys; ++k) {
      key[k] = load_half(keys[k] + d, h);
      if constexpr (kRows == 1) sum[0][k] = _mm256_fmadd_ps(q[0], key[k], sum[0][k]);
    }
    for (int i = 0; i < kRows && kRows > 1; ++i) {
      q[i] = _mm256_loadu_ps(query + i * width + d + 8 * h);
      in_register(q[i]);  // one load for all keys
      for (int k = 0; k < kKeys; ++k) sum[i][k] = _mm256_fmadd_ps(q[i], key[k], sum[i][k]);
    }
  }
}

// sum[i][k] = the eight running sums of <query row i, keys[k]>. Meanwhile the rows `ahead`, one per
// key, are asked for.
template <int kRows, int kKeys, typename T>
[[gnu::always_inline]] inline void dot_sums(const float* query, int64_t width, int dim,
                                            const T* const* keys, Ahead<T> ahead,
                                            __m256 (&sum)[kRows][kKeys]) {
  constexpr int kSteps = kLine<T> / kStep;  // in a line
  for (auto& row : sum)
    for (__m256& s : row) s = _mm256_setzero_ps();
  const T* at[kKeys];
  for (int k = 0; k < kKeys; ++k) at[k] = keys[k];
  int64_t d = 0;
#pragma GCC unroll 8
  for (; d + kLine<T> <= dim; d += kLine<T>)
    for (int s = 0; s < kSteps; ++s) {
      add_step(query, width, at, d + s * kStep, sum);
      for (int k = s; k < kKeys; k += kSteps) ask(ahead[k] + d);  // half, where a line is two steps
    }
  if (d + kStep <= dim) {
    add_step(query, width, at, d, sum);
    d += kStep;
  }
  if (d < dim) {
    T rest[kKeys][kStep] = {};
    for (int k = 0; k < kKeys; ++k) {
      std::copy_n(at[k] + d, dim - d, rest[k]);
      at[k] = rest[k];
    }
    add_step(query + d, width, at, 0, sum);
  }
}

// Keys that meet kRows rows at a time.
template <int kRows>
constexpr int kTogether = kRows == 1   ? 8
                          : kRows == 2 ? 4
                                       : 2;

// scores[i * stride + k] = <query row i, keys[k]> for kTogether<kRows> keys.
template <int kRows, typename T>
[[gnu::always_inline]] inline void score_keys(const float* query, int64_t width, int dim,
                                              const T* const* keys, Ahead<T> ahead, float* scores,
                                              int64_t stride) {
  constexpr int kKeys = kTogether<kRows>;
  __m256 sum[kRows][kKeys];
  dot_sums(query, width, dim, keys, ahead, sum);
  if constexpr (kKeys >= 4) {
    for (int i = 0; i < kRows; ++i)
      for (int k = 0; k < kKeys; k += 4)
        _mm_storeu_ps(scores + i * stride + k,
                      fold4(sum[i][k], sum[i][k + 1], sum[i][k + 2], sum[i][k + 3]));
  } else {
    for (int i = 0; i < kRows; i += 2) {
      const int other = i + 1 < kRows ? i + 1 : i;
      const __m128 four = fold4(sum[i][0], sum[i][1], sum[other][0], sum[other][1]);
      _mm_storel_pi(reinterpret_cast<__m64*>(scores + i * stride), four);
      if (other > i) _mm_storeh_pi(reinterpret_cast<__m64*>(scores + other * stride), four);
    }
  }
}

// kDim: head_dim, where the compiler shall know it; 0: `dim` is.
template <int kRows, int kDim, typename T>
void score_rows(const float* query, int64_t width, int dim, const T* const* keys, int num_keys,
                Ahead<T> ahead, float* scores, int64_t stride) {
  for (int k = 0; k < num_keys; k += kTogether<kRows>)
    score_keys<kRows>(query, kDim ? kDim : width, kDim ? kDim : dim, keys + k, ahead + k,
                      scores + k, stride);
}

// The same for num_rows rows and num_keys keys, a multiple of 8.
template <typename T>
void multiply_keys(const float* query, int64_t width, int dim, int num_rows, const T* const* keys,
                   int num_keys, Ahead<T> ahead, float* scores, int64_t stride) {
  const auto rows = [&](auto count) {
    const auto run = dim == 128  ? score_rows<count, 128, T>
                     : dim == 64 ? score_rows<count, 64, T>
                                 : score_rows<count, 0, T>;
    run(query, width, dim, keys, num_keys, ahead, scores, stride);
    query += count * width;
    scores += count * stride;
    num_rows -= count;
  };
  using std::integral_constant;
  while (num_rows >= 6 && num_rows != 7) rows(integral_constant<int, 6>{});
  if (num_rows >= 4 && num_rows != 5) rows(integral_constant<int, 4>{});
  if (num_rows >= 3) rows(integral_constant<int, 3>{});
  if (num_rows == 2) rows(integral_constant<int, 2>{});
  if (num_rows == 1) rows(integral_constant<int, 1>{});
}

// ---- values -----------------------------------------------------------------------------------
// Weights [rows][stride] times values, added to sums [rows][width].
template <typename T>
struct ValueProduct {
  const float* weights;
  int64_t stride;
  const T* const* values;
  int num_keys, dim;
  Ahead<T> ahead;
  float* sums;
  int64_t width;
};

// sums[i * width + d] += weights[i * stride + k] times element d of values[k], for ascending k, one
// fma each; d over kSteps steps from `first` on.
template <bool kAhead, int kRows, int kSteps, typename T, typename Load>
[[gnu::always_inline]] inline void add_products(const ValueProduct<T>& p, int first,
                                                const Load& load_value) {
  float* sums = p.sums + first;
  const int64_t width = p.width, stride = p.stride;
  const T* const* values = p.values;
  const float* weights = p.weights;
  const Ahead<T> ahead = p.ahead;
  Step sum[kRows][kSteps];
  for (int i = 0; i < kRows; ++i)
    for (int s = 0; s < kSteps; ++s) sum[i][s] = load_step(sums + i * width + s * kStep);
#pragma GCC unroll 4
  for (int k = 0; k < p.num_keys; ++k) {
    Step value[kSteps];
    for (int s = 0; s < kSteps; ++s) value[s] = load_value(values[k], s);
    if constexpr (kAhead)
      for (int s = 0; s < kSteps; s += kLine<T> / kStep) ask(ahead[k] + first + s * kStep);
    for (int i = 0; i < kRows; ++i) {
      const Vec w(weights[i * stride + k]);
      for (int s = 0; s < kSteps; ++s) sum[i][s] = fma(w, value[s], sum[i][s]);
    }
  }
  for (int i = 0; i < kRows; ++i)
    for (int s = 0; s < kSteps; ++s) store_step(sums + i * width + s * kStep, sum[i][s]);
}

// The same for up to six rows and all of head_dim.
template <int kRows, typename T>
void add_rows(const ValueProduct<T>& p) {
  constexpr int kSteps = kRows == 1 ? 4 : kRows <= 3 ? 2 : 1;
  const auto whole = [](int d) {
    return [d](const T* row, int s) { return load_step(row + d + s * kStep); };
  };
  int d = 0;
  for (; d + kSteps * kStep <= p.dim; d += kSteps * kStep) {
    if (p.ahead && d % kLine<T> == 0)
      add_products<true, kRows, kSteps>(p, d, whole(d));
    else
      add_products<false, kRows, kSteps>(p, d, whole(d));
  }
  for (; d < p.dim; d += kStep)
    add_products<false, kRows, 1>(
        p, d, [d, dim = p.dim](const T* row, int) { return load_elements(row, d, dim); });
}

template <typename T>
void add_values(ValueProduct<T> p, int num_rows) {
  const auto rows = [&](auto count) {
    add_rows<count>(p);
    num_rows -= count;
    p.weights += count * p.stride;
    p.sums += count * p.width;
    p.ahead = nullptr;
  };
  using std::integral_constant;
  while (num_rows >= 6) rows(integral_constant<int, 6>{});
  switch (num_rows) {
    case 5: return rows(integral_constant<int, 5>{});
    case 4: return rows(integral_constant<int, 4>{});
    case 3: return rows(integral_constant<int, 3>{});
    case 2: return rows(integral_constant<int, 2>{});
    case 1: return rows(integral_constant<int, 1>{});
  }
}
}  // namespace lmx::attention::LMX_ISA
