// csrc/layerskip/arguments.h: torch side only. From the ops' arguments to the kernels' structs.
#pragma once
#include <string>
#include <vector>

#include "../common/backend.h"
#include "../common/overlap.h"
#include "gemm.h"

namespace lmx::layerskip {
namespace {  // of bind.cpp, the one file that includes this
using OptTensor = std::optional<Tensor>;
using OptTensors = std::optional<std::vector<Tensor>>;
constexpr int64_t kMaxCount = 0x7fffffff;

// ---- vectors of one value per row or group --------------------------------------------------
inline const Tensor* check_vector(const OptTensor& t, int64_t size, ScalarType type,
                                  const Tensor& like, const char* op, const char* name,
                                  const char* spelled) {
  if (!t) return nullptr;
  check_shape(*t, op, name, {size}, spelled);
  check_dtype(*t, op, name, type);
  check_contiguous(*t, op, name);
  check_device(*t, like, op, name, "x");
  return &*t;
}
template <typename T>
const T* vector_of(const OptTensor& t, int64_t size, ScalarType type, const Tensor& like,
                   const char* op, const char* name, const char* spelled) {
  const Tensor* checked = check_vector(t, size, type, like, op, name, spelled);
  return checked ? in<T>(*checked) : nullptr;
}
inline int32_t* status_of(const OptTensor& t, int64_t num_rows, const Tensor& like,
                          const char* op) {
  const Tensor* checked =
      check_vector(t, num_rows, ScalarType::Int, like, op, "status", "(num_rows)");
  return checked ? out<int32_t>(*checked) : nullptr;
}

// `group` as int32. On a CPU int64 is taken too, and copied.
class GroupTensor {
 public:
  GroupTensor(const Tensor& group, const Tensor& like, int64_t num_groups, const char* op)
      : groups_{.group = nullptr, .num_rows = like.size(0), .num_groups = num_groups} {
    check_shape(group, op, "group", {groups_.num_rows}, "(num_rows)");
    check_contiguous(group, op, "group");
    check_device(group, like, op, "group", "x");
    if (group.scalar_type() == ScalarType::Long && group.is_cpu()) {
      const auto* wide = static_cast<const int64_t*>(group.data_ptr());
      narrow_ = new_tensor(group, {groups_.num_rows}, ScalarType::Int);
      auto* narrow = static_cast<int32_t*>(narrow_->data_ptr());
      for (int64_t i = 0; i < groups_.num_rows; ++i)
        narrow[i] = static_cast<int32_t>(std::clamp<int64_t>(wide[i], -kMaxCount, kMaxCount));
    } else {
      check_dtype(group, op, "group", ScalarType::Int);
    }
    static const int32_t kNone = 0;  // an empty tensor has no address; null means "no groups"
    groups_.group = in<int32_t>(narrow_ ? *narrow_ : group);
    if (!groups_.group) groups_.group = &kNone;
  }
  const Groups& get() const { return groups_; }

 private:
  OptTensor narrow_;
  Groups groups_;
};

inline void check_plan(const std::vector<Tensor>& plan, const Tensor& x, int64_t num_groups,
                       const char* op) {
  STD_TORCH_CHECK(plan.size() == 4, op, ": expected plan to be the four tensors of skip_plan, got ",
                  plan.size());
  const char* const names[] = {"plan's perm", "plan's offsets", "plan's tiles", "plan's info"};
  check_shape(plan[0], op, names[0], {x.size(0)}, "(num_rows)");
  check_shape(plan[1], op, names[1], {num_groups + 1}, "(num_groups + 1)");
  check_shape(plan[2], op, names[2], {-1, 3}, "(num_tiles, 3)");
  check_shape(plan[3], op, names[3], {4}, "(4)");
  for (int i = 0; i < 4; ++i) {
    check_dtype(plan[i], op, names[i], ScalarType::Int);
    check_contiguous(plan[i], op, names[i]);
    check_device(plan[i], x, op, names[i], "x");
  }
}

// ---- matrices whose rows are contiguous -----------------------------------------------------
inline void check_rows(const Tensor& t, const char* op, const char* name) {
  const bool dense = t.numel() == 0 || t.size(1) == 1 || t.stride(1) == 1;
  STD_TORCH_CHECK(dense && (t.size(0) <= 1 || t.stride(0) >= 0), op, ": expected ", name,
                  " contiguous in the last dimension, got strides ", spell(t.strides()));
}
inline Matrix matrix_of(const Tensor& t, void* data) {
  const DType dtype = t.scalar_type() == ScalarType::Float  ? DType::f32
                      : t.scalar_type() == ScalarType::Half ? DType::f16
                                                            : DType::bf16;
  return {data, t.size(0) > 1 ? t.stride(0) : t.size(1), dtype};
}
inline Matrix matrix_in(const Tensor& t) { return matrix_of(t, const_cast<void*>(in(t))); }
inline Matrix matrix_out(const Tensor& t) { return matrix_of(t, out(t)); }
inline Matrix matrix_fresh(const Tensor& t) { return matrix_of(t, fresh<char>(t)); }

// ---- names ----------------------------------------------------------------------------------
template <typename T>
struct Named {
  const char* name;
  T value;
};
template <typename T, size_t kCount>
T value_of(const std::string& got, const Named<T> (&known)[kCount], const char* op,
           const char* argument) {
  std::string names;
  for (const auto& k : known) {
    if (got == k.name) return k.value;
    names += std::string(names.empty() ? "" : ", ") + k.name;
  }
  STD_TORCH_CHECK(false, op, ": expected ", argument, " to be one of ", names, ", got ", got);
}

inline Activation activation_of(const std::string& name, const char* op) {
  using A = Activation;
  static constexpr Named<A> kKnown[] = {
      {"none", A::none}, {"relu", A::relu}, {"gelu_tanh", A::gelu_tanh}, {"gelu_erf", A::gelu_erf},
      {"silu", A::silu}, {"tanh", A::tanh}, {"sigmoid", A::sigmoid}};
  return value_of(name, kKnown, op, "activation");
}

inline Skipped skipped_of(const std::string& name, bool has_residual, bool has_out,
                          const char* op) {
  if (name == "auto") return has_residual ? Skipped::residual : Skipped::zero;
  static constexpr Named<Skipped> kKnown[] = {{"auto", {}},
                                              {"zero", Skipped::zero},
                                              {"residual", Skipped::residual},
                                              {"keep", Skipped::keep}};
  const Skipped skipped = value_of(name, kKnown, op, "skipped");
  STD_TORCH_CHECK(skipped != Skipped::residual || has_residual, op,
                  ": expected residual where skipped is 'residual', got None");
  STD_TORCH_CHECK(skipped != Skipped::keep || has_out, op,
                  ": expected skipped to be 'keep' only in skip_gemm_out");
  return skipped;
}

inline ScalarType out_type(const std::optional<ScalarType>& wanted, const Tensor& x,
                           const char* op) {
  const ScalarType type = wanted.value_or(x.scalar_type());
  STD_TORCH_CHECK(type == ScalarType::Float || type == x.scalar_type(), op,
                  ": expected out_dtype Float or that of x, ",
                  torch::headeronly::toString(x.scalar_type()), ", got ",
                  torch::headeronly::toString(type));
  return type;
}

// ---- weights --------------------------------------------------------------------------------
// Exactly one of a stack [num_groups, N, ...] and a list of [N, ...]; an empty tensor of the list
// is a group without weights.
class WeightTensors {
 public:
  WeightTensors(const Tensor& x, const OptTensor& stack, const OptTensors& list,
                const OptTensor& scale, const std::string& format, const char* op,
                const char* name = "weight")
      : op_(op), name_(name) {
    check_shape(x, op, "x", {-1, -1}, "(num_rows, K)");
    check_rows(x, op, "x");
    const std::string plural = std::string(name) + "s";
    STD_TORCH_CHECK(stack.has_value() != list.has_value(), op, ": expected exactly one of ", name,
                    " and ", plural, ", got ", stack ? "both" : "neither");
    w_.dtype = dtype_of(x, op, "x");
    w_.k = x.size(1);
    set_format(format, x);
    if (stack)
      take_stack(*stack, x);
    else
      take_list(*list, x);
    take_scale(scale, x);
  }
  Weights get() const {
    Weights w = w_;
    w.group = groups_.data();
    w.num_groups = static_cast<int64_t>(groups_.size());
    return w;
  }
  int64_t n() const { return w_.n; }
  const std::vector<const Tensor*>& tensors() const { return tensors_; }

 private:
  void set_format(const std::string& format, const Tensor& x) {
    static constexpr Named<Format> kKnown[] = {{"dense", Format::dense},
                                               {"int8", Format::int8},
                                               {"q8_0", Format::q8_0},
                                               {"q4_0", Format::q4_0},
                                               {"q4_1", Format::q4_1}};
    w_.format = value_of(format, kKnown, op_, "format");
    stored_ = w_.format == Format::dense ? x.scalar_type()
              : is_blocks(w_.format)     ? ScalarType::Byte
                                         : ScalarType::Char;
    STD_TORCH_CHECK(!is_blocks(w_.format) || w_.k % kBlockWeights == 0, op_,
                    ": expected K a multiple of ", kBlockWeights, " for format ", format, ", got ",
                    w_.k);
    STD_TORCH_CHECK(!is_blocks(w_.format) || w_.dtype == DType::bf16, op_,
                    ": expected x of dtype BFloat16 for format ", format, ", got ",
                    torch::headeronly::toString(x.scalar_type()));
    STD_TORCH_CHECK(w_.format != Format::int8 || w_.dtype != DType::f32, op_,
                    ": expected x of dtype BFloat16 or Half for format int8, got Float");
    row_units_ = is_blocks(w_.format) ? row_bytes(w_.format, w_.dtype, w_.k) : w_.k;
  }

  // One matrix: [N, K], or [N, bytes of a row] for blocks.
  void take(const Tensor& t, int64_t n, int64_t data_offset, int64_t row_stride) {
    const int64_t size = t.element_size();
    const char* data = static_cast<const char*>(t.data_ptr()) + data_offset * size;
    groups_.push_back({n * row_units_ > 0 ? data : nullptr, row_stride * size});
  }

  void check_matrix(const Tensor& t, const Tensor& x, int dims) {
    const bool dense = t.numel() == 0 || t.size(dims - 1) == 1 || t.stride(dims - 1) == 1;
    STD_TORCH_CHECK(dense, op_, ": expected ", name_,
                    " contiguous in the last dimension, got strides ", spell(t.strides()));
    STD_TORCH_CHECK(t.scalar_type() == stored_, op_, ": expected ", name_, " of dtype ",
                    torch::headeronly::toString(stored_), ", got ",
                    torch::headeronly::toString(t.scalar_type()));
    check_device(t, x, op_, name_, "x");
    tensors_.push_back(&t);
    in(t);  // the harness's leave to read it
  }

  void take_stack(const Tensor& t, const Tensor& x) {
    check_shape(t, op_, name_, {-1, -1, row_units_}, "(num_groups, N, K)");
    check_matrix(t, x, 3);
    w_.n = t.size(1);
    for (int64_t g = 0; g < t.size(0); ++g)
      take(t, w_.n, g * t.stride(0), t.size(1) > 1 ? t.stride(1) : row_units_);
  }

  void take_list(const std::vector<Tensor>& list, const Tensor& x) {
    const auto first = std::find_if(list.begin(), list.end(),
                                    [](const Tensor& t) { return t.dim() == 2 && t.numel() > 0; });
    w_.n = first == list.end() ? 0 : first->size(0);
    for (size_t g = 0; g < list.size(); ++g) {
      const Tensor& t = list[g];
      if (t.numel() == 0) {
        groups_.push_back({nullptr, 0});
        continue;
      }
      const std::string each = std::string(name_) + "s[" + std::to_string(g) + "]";
      check_shape(t, op_, each.c_str(), {w_.n, row_units_}, "(N, K)");
      check_matrix(t, x, 2);
      take(t, w_.n, 0, t.size(0) > 1 ? t.stride(0) : row_units_);
    }
  }

  void take_scale(const OptTensor& scale, const Tensor& x) {
    const std::string name = std::string(name_) + "_scale";
    const bool wanted = w_.format == Format::int8;
    STD_TORCH_CHECK(scale.has_value() == wanted, op_, ": expected ", name,
                    wanted ? " for format int8, got None" : " only for format int8");
    if (!wanted) return;
    const auto num_groups = static_cast<int64_t>(groups_.size());
    check_shape(*scale, op_, name.c_str(), {num_groups, w_.n}, "(num_groups, N)");
    check_dtype(*scale, op_, name.c_str(), ScalarType::Float);
    check_contiguous(*scale, op_, name.c_str());
    check_device(*scale, x, op_, name.c_str(), "x");
    w_.scale = in<float>(*scale);
  }

  const char *op_, *name_;
  Weights w_{};
  ScalarType stored_ = ScalarType::Float;
  int64_t row_units_ = 0;
  std::vector<WeightGroup> groups_;
  std::vector<const Tensor*> tensors_;
};

// `out` may be `residual` itself, and else meets no input.
inline void check_out(const Tensor& out, const Tensor& x, const OptTensor& residual,
                      const WeightTensors& weights, const char* op) {
  STD_TORCH_CHECK(!overlap(out, x), op, ": expected out and x without common memory");
  for (const Tensor* t : weights.tensors())
    STD_TORCH_CHECK(!overlap(out, *t), op, ": expected out and weight without common memory");
  if (!residual || !overlap(out, *residual)) return;
  const bool same = out.data_ptr() == residual->data_ptr() &&
                    (out.size(0) < 2 || out.stride(0) == residual->stride(0)) &&
                    out.scalar_type() == residual->scalar_type();
  STD_TORCH_CHECK(same, op,
                  ": expected out to be residual itself or to have no memory in common with it, "
                  "got another view of it");
}
}  // namespace
}  // namespace lmx::layerskip
