// csrc/layerskip/steps.h: 16 weights at a time as floats, in SIMD registers. Include it only from
// kernel files.
//
// A dot product has 16 running sums: sum c takes the products with k = c mod 16, in ascending order
// of k, one fma each, from 0. At the end t[i] = sum[2i] + sum[2i + 1], u[0..3] = t[0] + t[2],
// t[1] + t[3], t[4] + t[6], t[5] + t[7], and the result is (u0 + u2) + (u1 + u3). Where the sums
// lie in the registers is a format's own choice; that is why it is this tree: it has two cheap
// forms.
#pragma once
#include "../common/step.h"
#include "weights.h"

namespace lmx::layerskip::LMX_ISA {
using namespace lmx::LMX_ISA;

// Natural: lane i of the registers is element i. Paired: the first register has elements 0, 2, ...,
// the second 1, 3, ...: bfloat16 comes apart that way with a shift and a mask. Tiles: see amx.h.
enum class Order { natural, paired, tiles };

inline Step load_step(const float* p) {
  Step s;
  for (int i = 0; i < kRegs; ++i) s.reg[i] = load(p + i * kLanes);
  return s;
}
inline Step load_step(const F16* p) {
  Step s;
  for (int i = 0; i < kRegs; ++i) s.reg[i] = load(p + i * kLanes);
  return s;
}

#if defined(__AVX512F__)
constexpr Order kBf16Order = Order::natural;
inline Step load_step(const Bf16* p) { return {{load(p)}}; }
inline Step load_step(const int8_t* p) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {{_mm512_maskz_cvtepi32_ps(0xffff, _mm512_maskz_cvtepi8_epi32(0xffff, bytes))}};
}
inline float fold_step(const Step& sum, Order) {
  const __m512i pairs = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
  const __m512i apart =
      _mm512_castps_si512(_mm512_maskz_permutexvar_ps(0xffff, pairs, sum.reg[0].raw));
  const __m256i even = _mm512_maskz_extracti32x8_epi32(0xff, apart, 0);
  const __m256i odd = _mm512_maskz_extracti32x8_epi32(0xff, apart, 1);
  const __m256 t = _mm256_add_ps(_mm256_castsi256_ps(even), _mm256_castsi256_ps(odd));
#else
constexpr Order kBf16Order = Order::paired;
inline Step load_step(const Bf16* p) {
  const __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  const __m256i odd = _mm256_and_si256(both, _mm256_set1_epi32(static_cast<int>(0xffff0000u)));
  return {{_mm256_castsi256_ps(_mm256_slli_epi32(both, 16)), _mm256_castsi256_ps(odd)}};
}
inline Step load_step(const int8_t* p) {
  const auto part = [p](int i) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + i));
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
  };
  return {{part(0), part(8)}};
}
inline float fold_step(const Step& sum, Order order) {
  __m256 t = _mm256_add_ps(sum.reg[0].raw, sum.reg[1].raw);
  if (order == Order::natural) {
    // hadd gives t0 t1 t4 t5 | t2 t3 t6 t7
    t = _mm256_hadd_ps(sum.reg[0].raw, sum.reg[1].raw);
    const __m128 u = _mm_add_ps(_mm256_castps256_ps128(t), _mm256_extractf128_ps(t, 1));
    const __m128 v = _mm_add_ps(u, _mm_movehl_ps(u, u));
    return _mm_cvtss_f32(v) + _mm_cvtss_f32(_mm_movehdup_ps(v));
  }
#endif
  const __m128 low = _mm256_castps256_ps128(t), high = _mm256_extractf128_ps(t, 1);
  const __m128 u01 = _mm_add_ps(low, _mm_movehl_ps(low, low));
  const __m128 u23 = _mm_add_ps(high, _mm_movehl_ps(high, high));
  const __m128 v = _mm_add_ps(u01, u23);
  return _mm_cvtss_f32(v) + _mm_cvtss_f32(_mm_movehdup_ps(v));
}

// Register r of load_step(p).
template <typename T>
inline Vec load_part(const T* p, int r) {
  return load_step(p).reg[r];
}

// A value that is used more than once: without this the compiler loads it anew for every use, and
// the tiles are bound by loads.
inline Vec in_register(Vec v) {
#if defined(__AVX512F__)
  asm volatile("" : "+v"(v.raw));
#else
  asm volatile("" : "+x"(v.raw));
#endif
  return v;
}

// Rows of x as floats in an order, zeros behind the last element up to a multiple of kStep.
template <typename T>
void widen_row(const T* x, int64_t k, Order order, float* out) {
  int64_t i = 0;
  const auto put = [&](const T* p, float* to) {
    if constexpr (std::is_same_v<T, Bf16>) {
      if (order == kBf16Order) {
        const Step s = load_step(p);
        for (int j = 0; j < kRegs; ++j) store(to + j * kLanes, s.reg[j]);
        return;
      }
    }
    for (int j = 0; j < kStep; ++j) to[j] = to_float(p[j]);
  };
  for (; i + kStep <= k; i += kStep) put(x + i, out + i);
  if (i == k) return;
  T tail[kStep] = {};
  std::copy(x + i, x + k, tail);
  put(tail, out + i);
}

// ---- block formats --------------------------------------------------------------------------
inline float half_at(const uint8_t* p) {
  uint16_t bits;
  std::memcpy(&bits, p, sizeof bits);
  if ((bits & 0x7fff) > 0x7c00) bits = 0x7e00;  // one NaN, which the rounding below keeps
  return _cvtsh_ss(bits);
}

#if defined(__AVX512F__)
inline Vec round_bf16(Vec v) {
  const __m512i u = _mm512_castps_si512(v.raw);
  const __m512i odd =
      _mm512_and_si512(_mm512_maskz_srli_epi32(0xffff, u, 16), _mm512_set1_epi32(1));
  const __m512i up = _mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd);
  return _mm512_castsi512_ps(
      _mm512_and_si512(up, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
}
// Bytes as floats: halves of 4 bits, 16 low or 16 high ones.
inline Step low_halves(__m128i bytes) {
  const __m128i low = _mm_and_si128(bytes, _mm_set1_epi8(15));
  return {{_mm512_maskz_cvtepi32_ps(0xffff, _mm512_maskz_cvtepu8_epi32(0xffff, low))}};
}
#else
inline Vec round_bf16(Vec v) {
  const __m256i u = _mm256_castps_si256(v.raw);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
  const __m256i up = _mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd);
  return _mm256_castsi256_ps(
      _mm256_and_si256(up, _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
}
inline Step low_halves(__m128i bytes) {
  const __m128i low = _mm_and_si128(bytes, _mm_set1_epi8(15));
  const __m128i upper = _mm_unpackhi_epi64(low, low);
  return {{_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(low)),
           _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(upper))}};
}
#endif
inline Step high_halves(__m128i bytes) { return low_halves(_mm_srli_epi16(bytes, 4)); }

// The 32 values of a block in natural order, before they are rounded to bfloat16.
template <Format kFormat>
[[gnu::always_inline]] inline void block_values(const uint8_t* block, Step (&out)[2]) {
  const Vec d(half_at(block));
  if constexpr (kFormat == Format::q8_0) {
    for (int i = 0; i < 2; ++i) {
      out[i] = load_step(reinterpret_cast<const int8_t*>(block + 2 + i * kStep));
      for (Vec& v : out[i].reg) v = d * v;
    }
  } else {
    constexpr int kScales = kFormat == Format::q4_1 ? 4 : 2;
    // q4_0: d (q - 8) has the bits of fma(d, q, -8 d): both are exact in float.
    const Vec m(kFormat == Format::q4_1 ? half_at(block + 2) : -8.f * half_at(block));
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(block + kScales));
    out[0] = low_halves(bytes), out[1] = high_halves(bytes);
    for (Step& s : out)
      for (Vec& v : s.reg) v = fma(d, v, m);
  }
}

// The 32 weights of a block, in natural order.
template <Format kFormat>
[[gnu::always_inline]] inline void expand_block(const uint8_t* block, Step (&out)[2]) {
  block_values<kFormat>(block, out);
  for (Step& s : out)
    for (Vec& v : s.reg) v = round_bf16(v);
}
}  // namespace lmx::layerskip::LMX_ISA
