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
inline void in_register(Vec& v) { asm("" : "+x"(v.raw)); }

// Elements [d, d + 16) of a row of `dim`, zeros behind its end.
template <typename T>
Step load_elements(const T* row, int d, int dim) {
  return dim - d < kStep ? load_part(row + d, dim - d) : load_step(row + d);
}

// ---- scores -----------------------------------------------------------------------------------
// sum[i][k] += the products of a step of query row i and one of key k. One register of the step
// after the other: the sums leave no room for more.
template <int kRows, int kKeys, typename T>
[[gnu::always_inline]] inline void add_step(const float* query, int64_t width,
                                            const T* const (&keys)[kKeys], int64_t d,
                                            Step (&sum)[kRows][kKeys]) {
  for (int r = 0; r < kRegs; ++r) {
    Vec key[kKeys];
    for (int k = 0; k < kKeys; ++k) key[k] = load_lanes(keys[k] + d, r);
    for (int i = 0; i < kRows; ++i) {
      Vec q = load(query + i * width + d + r * kLanes);
      in_register(q);  // one load for all keys
      for (int k = 0; k < kKeys; ++k) sum[i][k].reg[r] = fma(q, key[k], sum[i][k].reg[r]);
    }
  }
}

// sum[i][k] = the sixteen running sums of <query row i, keys[k]>.
template <bool kAhead, int kRows, int kKeys, typename T>
[[gnu::always_inline]] inline void dot_sums(const float* query, int64_t width, int dim,
                                            const T* const* keys, Ahead<T> ahead,
                                            Step (&sum)[kRows][kKeys]) {
  constexpr int kSteps = kLine<T> / kStep;  // in a line
  for (auto& row : sum)
    for (Step& s : row) s = zero_step();
  const T* at[kKeys];
  for (int k = 0; k < kKeys; ++k) at[k] = keys[k];
  int64_t d = 0;
  for (; d + kLine<T> <= dim; d += kLine<T>)
    for (int s = 0; s < kSteps; ++s) {
      add_step(query, width, at, d + s * kStep, sum);
      if constexpr (kAhead)  // half of the rows, where a line is two steps
        for (int k = s; k < kKeys; k += kSteps) ask(ahead[k] + d);
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

// Scores of up to three rows with four keys, scores[i * stride + k] = <query row i, keys[k]>.
template <bool kAhead, int kRows, typename T>
[[gnu::always_inline]] inline void four_keys(const float* query, int64_t width, int dim,
                                             const T* const* keys, Ahead<T> ahead, float* scores,
                                             int64_t stride) {
  if constexpr (kRows == 1) {
    Step sum[1][4];
    dot_sums<kAhead>(query, width, dim, keys, ahead, sum);
    _mm_storeu_ps(scores, fold4(sum[0][0], sum[0][1], sum[0][2], sum[0][3]));
  } else {
    for (int k = 0; k < 4; k += 2) {
      Step sum[kRows][2];
      dot_sums<kAhead>(query, width, dim, keys + k, ahead + k, sum);
      const __m128 four = fold4(sum[0][0], sum[0][1], sum[1][0], sum[1][1]);
      _mm_storel_pi(reinterpret_cast<__m64*>(scores + k), four);
      _mm_storeh_pi(reinterpret_cast<__m64*>(scores + stride + k), four);
      if constexpr (kRows == 3) {
        const Step &a = sum[2][0], &b = sum[2][1];
        _mm_storel_pi(reinterpret_cast<__m64*>(scores + 2 * stride + k), fold4(a, b, a, b));
      }
    }
  }
}

template <bool kAhead, int kRows, typename T>
void multiply_some(const float* query, int64_t width, int dim, const T* const* keys, int num_keys,
                   Ahead<T> ahead, float* scores, int64_t stride) {
  for (int k = 0; k < num_keys; k += 4)
    four_keys<kAhead, kRows>(query, width, dim, keys + k, ahead + k, scores + k, stride);
}

// The same for num_rows rows and num_keys keys, a multiple of 4. Rows as many as the keys are asked
// for.
template <typename T>
void multiply_keys(const float* query, int64_t width, int dim, int num_rows, const T* const* keys,
                   int num_keys, Ahead<T> ahead, float* scores, int64_t stride) {
  bool first = true;
  const auto rows = [&](auto count) {
    if (first)
      multiply_some<true, count>(query, width, dim, keys, num_keys, ahead, scores, stride);
    else
      multiply_some<false, count>(query, width, dim, keys, num_keys, ahead, scores, stride);
    first = false;
    query += count * width;
    scores += count * stride;
    num_rows -= count;
  };
  using std::integral_constant;
  while (num_rows >= 3 && num_rows != 4) rows(integral_constant<int, 3>{});
  while (num_rows >= 2) rows(integral_constant<int, 2>{});
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
