// common/vec.h: the one door to SIMD on the CPU. Include it only from kernel files (compiled once
// per level): Vec is 8 floats at level v3, 16 at v4.
//
// A plain struct and not std::experimental::simd: its fma and exp call libm lane by lane (g++ 12),
// and being in the std namespace they would win over ours in the templates of exact.h.
#pragma once
#include <immintrin.h>

#include "convert.h"
#include "exact.h"
#include "hostdev.h"

namespace lmx::LMX_ISA {
#if defined(__AVX512F__)
using VecRaw = __m512;
#else
using VecRaw = __m256;
#endif

struct Vec {
  VecRaw raw;
  Vec() = default;
  Vec(VecRaw r) : raw(r) {}
#if defined(__AVX512F__)
  explicit Vec(float x) : raw(_mm512_set1_ps(x)) {}
#else
  explicit Vec(float x) : raw(_mm256_set1_ps(x)) {}
#endif
};
constexpr int kLanes = static_cast<int>(sizeof(VecRaw) / sizeof(float));

inline Vec operator+(Vec a, Vec b) { return a.raw + b.raw; }
inline Vec operator-(Vec a, Vec b) { return a.raw - b.raw; }
inline Vec operator*(Vec a, Vec b) { return a.raw * b.raw; }

#if defined(__AVX512F__)
inline Vec load(const float* p) { return _mm512_loadu_ps(p); }
inline void store(float* p, Vec v) { _mm512_storeu_ps(p, v.raw); }
inline Vec max(Vec a, Vec b) { return _mm512_maskz_max_ps(0xffff, a.raw, b.raw); }
inline Vec min(Vec a, Vec b) { return _mm512_maskz_min_ps(0xffff, a.raw, b.raw); }

// The maskz forms avoid a false "maybe uninitialized" of g++ 12.
inline Vec load(const Bf16* p) {  // bf16 is the upper half of a float
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  const __m512i wide = _mm512_maskz_cvtepu16_epi32(0xffff, bits);
  return _mm512_castsi512_ps(_mm512_maskz_slli_epi32(0xffff, wide, 16));
}
inline Vec load(const F16* p) {
  return _mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}

// Bit i of the result: lane i of a is above that of b / is at least that of b / is NaN.
inline uint32_t above(Vec a, Vec b) { return _mm512_cmp_ps_mask(a.raw, b.raw, _CMP_GT_OQ); }
inline uint32_t at_least(Vec a, Vec b) { return _mm512_cmp_ps_mask(a.raw, b.raw, _CMP_GE_OQ); }
inline uint32_t is_nan(Vec a) { return _mm512_cmp_ps_mask(a.raw, a.raw, _CMP_UNORD_Q); }
// Lane i of v where bit i is set, else of `other`.
inline Vec select(uint32_t bits, Vec v, Vec other) {
  return _mm512_mask_blend_ps(static_cast<__mmask16>(bits), other.raw, v.raw);
}
// Element i of 16 stays where bit i is set, else becomes `other`.
inline void blend16(uint16_t* p, uint32_t bits, uint16_t other) {
  _mm256_mask_storeu_epi16(p, static_cast<__mmask16>(~bits),
                           _mm256_set1_epi16(static_cast<short>(other)));
}

// What exact.h asks of F.
inline Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a.raw, b.raw, c.raw); }
inline Vec round_even(Vec a) {
  return _mm512_maskz_roundscale_ps(0xffff, a.raw, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
inline Vec scale_exp2(Vec p, Vec e) {
  const __mmask16 live = _mm512_cmp_ps_mask(e.raw, _mm512_set1_ps(exact::kMinExponent), _CMP_GE_OQ);
  const __m512i shift = _mm512_maskz_slli_epi32(live, _mm512_maskz_cvtps_epi32(live, e.raw), 23);
  return _mm512_castsi512_ps(_mm512_maskz_add_epi32(live, _mm512_castps_si512(p.raw), shift));
}
#else
inline Vec load(const float* p) { return _mm256_loadu_ps(p); }
inline void store(float* p, Vec v) { _mm256_storeu_ps(p, v.raw); }
inline Vec max(Vec a, Vec b) { return _mm256_max_ps(a.raw, b.raw); }
inline Vec min(Vec a, Vec b) { return _mm256_min_ps(a.raw, b.raw); }

inline Vec load(const Bf16* p) {  // bf16 is the upper half of a float
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
inline Vec load(const F16* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}

// Bit i of the result: lane i of a is above that of b / is at least that of b / is NaN.
inline uint32_t above(Vec a, Vec b) {
  return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(a.raw, b.raw, _CMP_GT_OQ)));
}
inline uint32_t at_least(Vec a, Vec b) {
  return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(a.raw, b.raw, _CMP_GE_OQ)));
}
inline uint32_t is_nan(Vec a) {
  return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(a.raw, a.raw, _CMP_UNORD_Q)));
}
// Lane i of v where bit i is set, else of `other`.
inline Vec select(uint32_t bits, Vec v, Vec other) {
  const __m256i lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  const __m256i mine = _mm256_and_si256(_mm256_set1_epi32(static_cast<int>(bits)), lane);
  return _mm256_blendv_ps(other.raw, v.raw, _mm256_castsi256_ps(_mm256_cmpeq_epi32(mine, lane)));
}
// Element i of 16 stays where bit i is set, else becomes `other`.
inline void blend16(uint16_t* p, uint32_t bits, uint16_t other) {
  const __m256i lane = _mm256_setr_epi16(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096,
                                         8192, 16384, -32768);
  const __m256i mine = _mm256_and_si256(_mm256_set1_epi16(static_cast<short>(bits)), lane);
  const __m256i old = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm256_blendv_epi8(_mm256_set1_epi16(static_cast<short>(other)), old,
                                         _mm256_cmpeq_epi16(mine, lane)));
}

// What exact.h asks of F.
inline Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a.raw, b.raw, c.raw); }
inline Vec round_even(Vec a) {
  return _mm256_round_ps(a.raw, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
inline Vec scale_exp2(Vec p, Vec e) {
  const __m256 live = _mm256_cmp_ps(e.raw, _mm256_set1_ps(exact::kMinExponent), _CMP_GE_OQ);
  const __m256i shift = _mm256_slli_epi32(_mm256_cvtps_epi32(e.raw), 23);
  const __m256i scaled = _mm256_add_epi32(_mm256_castps_si256(p.raw), shift);
  return _mm256_and_ps(_mm256_castsi256_ps(scaled), live);
}
#endif

// Folds the lanes by a fixed tree: the upper half onto the lower half, until one is left.
template <typename F>
float fold(Vec v, const F& f) {
  float lane[kLanes];
  store(lane, v);
  for (int half = kLanes / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) lane[i] = f(lane[i], lane[i + half]);
  return lane[0];
}

// f(T{}) for the C++ type of a dtype.
template <typename F>
void visit_dtype(DType dtype, const F& f) {
  switch (dtype) {
    case DType::f32: return f(float{});
    case DType::f16: return f(F16{});
    case DType::bf16: return f(Bf16{});
  }
}
}  // namespace lmx::LMX_ISA
