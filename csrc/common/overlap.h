// common/overlap.h: torch side only. Whether two tensors share memory.
#pragma once
#include <torch/csrc/stable/tensor.h>

#include <algorithm>

namespace lmx {
using torch::stable::Tensor;

// The bytes from the first to behind the last element; strides are not negative.
inline int64_t span_bytes(const Tensor& t) {
  if (t.numel() == 0) return 0;
  int64_t last = 0;
  for (int64_t d = 0; d < t.dim(); ++d) last += (t.size(d) - 1) * t.stride(d);
  return (last + 1) * static_cast<int64_t>(t.element_size());
}

// Rows of two matrices may interleave without meeting: columns of one buffer, side by side.
inline bool rows_interleave(const Tensor& a, const Tensor& b) {
  if (a.dim() != 2 || b.dim() != 2 || a.size(0) < 2 || b.size(0) < 2) return false;
  const auto size_a = static_cast<int64_t>(a.element_size());
  const auto size_b = static_cast<int64_t>(b.element_size());
  const int64_t pitch = a.stride(0) * size_a;
  if (pitch <= 0 || pitch != b.stride(0) * size_b) return false;
  const int64_t width_a = a.size(1) * size_a, width_b = b.size(1) * size_b;
  const auto from_a =
      static_cast<const char*>(b.data_ptr()) - static_cast<const char*>(a.data_ptr());
  const int64_t offset = (from_a % pitch + pitch) % pitch;
  return offset >= width_a && offset + width_b <= pitch;
}

inline bool overlap(const Tensor& a, const Tensor& b) {
  const auto* begin_a = static_cast<const char*>(a.data_ptr());
  const auto* begin_b = static_cast<const char*>(b.data_ptr());
  const bool apart = begin_a + span_bytes(a) <= begin_b || begin_b + span_bytes(b) <= begin_a;
  return !apart && !rows_interleave(a, b);
}
}  // namespace lmx
