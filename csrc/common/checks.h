// common/checks.h: torch side only. Checks whose message names op, argument, expected and got.
#pragma once
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <initializer_list>
#include <sstream>
#include <string>

#include "hostdev.h"

namespace lmx {
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// kOp is the op's name in the calling function; -1 matches any size.
#define LMX_CHECK_SHAPE(t, ...) ::lmx::check_shape(t, kOp, #t, {__VA_ARGS__}, "(" #__VA_ARGS__ ")")
#define LMX_CHECK_DTYPE(t, type) ::lmx::check_dtype(t, kOp, #t, ScalarType::type)
#define LMX_CHECK_DEVICE(t, like) ::lmx::check_device(t, like, kOp, #t, #like)
#define LMX_CHECK_CONTIGUOUS(t) ::lmx::check_contiguous(t, kOp, #t)
#define LMX_DTYPE(t) ::lmx::dtype_of(t, kOp, #t)

template <typename Sizes>
std::string spell(const Sizes& sizes) {
  std::ostringstream s;
  s << '[';
  for (auto it = sizes.begin(); it != sizes.end(); ++it)
    s << (it == sizes.begin() ? "" : ", ") << *it;
  s << ']';
  return s.str();
}

inline void check_shape(const Tensor& t, const char* op, const char* name,
                        std::initializer_list<int64_t> expected, const char* spelled) {
  const auto got = t.sizes();
  bool ok = got.size() == expected.size();
  for (size_t i = 0; ok && i < got.size(); ++i)
    ok = expected.begin()[i] < 0 || got[i] == expected.begin()[i];
  STD_TORCH_CHECK(ok, op, ": expected ", name, " of shape ", spelled, " = ", spell(expected),
                  ", got ", spell(got));
}

inline void check_dtype(const Tensor& t, const char* op, const char* name, ScalarType type) {
  STD_TORCH_CHECK(t.scalar_type() == type, op, ": expected ", name, " of dtype ",
                  torch::headeronly::toString(type), ", got ",
                  torch::headeronly::toString(t.scalar_type()));
}

inline std::string spell_device(const Tensor& t) {
  return t.is_cpu() ? "cpu" : "cuda:" + std::to_string(t.get_device_index());
}

inline void check_device(const Tensor& t, const Tensor& like, const char* op, const char* name,
                         const char* like_name) {
  STD_TORCH_CHECK(t.is_cpu() == like.is_cpu() && t.get_device_index() == like.get_device_index(),
                  op, ": expected ", name, " on the device of ", like_name, " = ",
                  spell_device(like), ", got ", spell_device(t));
}

inline void check_contiguous(const Tensor& t, const char* op, const char* name) {
  STD_TORCH_CHECK(t.is_contiguous(), op, ": expected ", name, " contiguous, got sizes ",
                  spell(t.sizes()), " and strides ", spell(t.strides()));
}

inline DType dtype_of(const Tensor& t, const char* op, const char* name) {
  switch (t.scalar_type()) {
    case ScalarType::Float: return DType::f32;
    case ScalarType::Half: return DType::f16;
    case ScalarType::BFloat16: return DType::bf16;
    default:
      STD_TORCH_CHECK(false, op, ": expected ", name, " of dtype Float, Half or BFloat16, got ",
                      torch::headeronly::toString(t.scalar_type()));
  }
}
}  // namespace lmx
