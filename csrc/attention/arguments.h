// csrc/attention/arguments.h: torch side only. Checks of the room's arguments, and what is refused.
#pragma once
#include <string>

#include "../common/backend.h"
#include "paged.h"

namespace lmx::attention {
namespace {  // of bind.cpp, the one file that includes this
using OptTensor = std::optional<Tensor>;

// An empty tensor may have no address, and null means that there is no tensor.
template <typename T>
const T* present(const T* p) {
  static const T kNothing{};
  return p ? p : &kNothing;
}

inline void check_like(const Tensor& t, const Tensor& like, const char* op, const char* name,
                       const char* like_name) {
  STD_TORCH_CHECK(t.scalar_type() == like.scalar_type(), op, ": expected ", name,
                  " of the dtype of ", like_name, " = ",
                  torch::headeronly::toString(like.scalar_type()), ", got ",
                  torch::headeronly::toString(t.scalar_type()));
  check_device(t, like, op, name, like_name);
}
inline void check_int(const Tensor& t, const Tensor& like, const char* op, const char* name) {
  check_dtype(t, op, name, ScalarType::Int);
  check_device(t, like, op, name, "query");
}

inline Heads heads_in(const Tensor& t, const char* op, const char* name) {
  const bool dense = t.numel() == 0 || t.size(2) == 1 || t.stride(2) == 1;
  STD_TORCH_CHECK(dense, op, ": expected ", name, " contiguous in the last dimension, got strides ",
                  spell(t.strides()));
  return {in(t), t.stride(0), t.stride(1)};
}
inline const int32_t* vector_in(const Tensor& t, int64_t size, const Tensor& like, const char* op,
                                const char* name, const char* spelled) {
  check_shape(t, op, name, {size}, spelled);
  check_int(t, like, op, name);
  check_contiguous(t, op, name);
  return in<int32_t>(t);
}
inline int32_t* status_of(const OptTensor& t, int64_t size, const char* spelled, const Tensor& like,
                          const char* op) {
  if (!t) return nullptr;
  check_shape(*t, op, "status", {size}, spelled);
  check_int(*t, like, op, "status");
  check_contiguous(*t, op, "status");
  return out<int32_t>(*t);
}

// ---- tables -----------------------------------------------------------------------------------
inline bool is_page_size(int64_t n) { return n == 8 || n == 16 || n == 32 || n == 64 || n == 128; }

inline void check_table(const Tensor& t, const PagedParams& p, const Tensor& query, const char* op,
                        const char* name) {
  check_shape(t, op, name, {p.num_seqs, -1, -1}, "(num_seqs, 1, table_width)");
  STD_TORCH_CHECK(t.size(1) == 1, op, ": expected ", name,
                  " with one row a sequence (scope seq), got ", t.size(1),
                  "; scopes layer and head are not built yet");
  check_int(t, query, op, name);
  STD_TORCH_CHECK(t.size(2) <= 1 || t.stride(2) == 1, op, ": expected ", name,
                  " contiguous in the last dimension, got strides ", spell(t.strides()));
}

inline Part part_of(const std::string& name, const char* op) {
  if (name == "all") return Part::all;
  if (name == "prefix") return Part::prefix;
  STD_TORCH_CHECK(name == "fresh", op, ": expected part to be one of all, prefix, fresh, got ",
                  name);
  return Part::fresh;
}

// ---- what is not built yet --------------------------------------------------------------------
struct Later {
  const OptTensor &kv_scale, &cos, &sin, &slot_rank, &query_rank, &transform_n, &row_weight,
      &lse_in;
  const std::string &key_store, &positions, &transform;
  int64_t transform_power, clamp;
};
inline void refuse(const Later& a, const char* op) {
  const auto only = [op](const std::string& got, const char* name, const char* known) {
    STD_TORCH_CHECK(got == known, op, ": expected ", name, " to be ", known, ", got ", got,
                    "; other values are not built yet");
  };
  only(a.key_store, "key_store", "post_rope");
  only(a.positions, "positions", "orig");
  only(a.transform, "transform", "softmax");
  STD_TORCH_CHECK(a.clamp == 0, op, ": expected clamp = 0, got ", a.clamp,
                  "; positions 'clamp' are not built yet");
  STD_TORCH_CHECK(a.transform_power == 15, op, ": expected transform_power = 15, got ",
                  a.transform_power, "; transform 'lssar' is not built yet");
  const auto none = [op](const OptTensor& t, const char* name, const char* what) {
    STD_TORCH_CHECK(!t, op, ": expected ", name, " to be None, for ", what,
                    " are not built yet, got a tensor of sizes ", t ? spell(t->sizes()) : "");
  };
  none(a.kv_scale, "kv_scale", "quantised pages");
  none(a.cos, "cos", "keys stored before rotation");
  none(a.sin, "sin", "keys stored before rotation");
  none(a.slot_rank, "slot_rank", "positions 'rank'");
  none(a.query_rank, "query_rank", "positions 'rank'");
  none(a.transform_n, "transform_n", "transforms 'lssa' and 'lssar'");
  none(a.row_weight, "row_weight", "column sums");
  none(a.lse_in, "lse_in", "column sums");
}
}  // namespace
}  // namespace lmx::attention
