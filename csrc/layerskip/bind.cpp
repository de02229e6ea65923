// csrc/layerskip/bind.cpp: the torch side of the room. Compiled once per backend, see
// common/backend.h.
#include <cstring>

#include "../common/backend.h"
#include "arguments.h"
#include "gather.h"
#include "gemm.h"
#include "norm.h"
#include "plan.h"
#include "swiglu.h"

namespace lmx::layerskip {
namespace {
// ---- plan -----------------------------------------------------------------------------------
struct PlanTensors {
  Tensor perm, offsets, tiles, info;
  std::optional<Tensor> space;
  PlanTensors(const Tensor& like, int64_t num_rows, int64_t num_groups, int64_t block_m)
      : perm(new_tensor(like, {num_rows}, ScalarType::Int)),
        offsets(new_tensor(like, {num_groups + 1}, ScalarType::Int)),
        tiles(new_tensor(like, {num_tiles(num_rows, num_groups, block_m), 3}, ScalarType::Int)),
        info(new_tensor(like, {4}, ScalarType::Int)) {
    const int64_t numbers = kOnDevice ? plan_space(num_rows, num_groups) : 0;
    if (numbers > 0) space = new_tensor(like, {numbers}, ScalarType::Int);
  }
  // Also where the plan is one op's own: a later kernel of the op reads what this one wrote.
  Plan run(const Call& call, const Groups& groups, const int32_t* alias, int64_t block_m,
           int32_t* status, const char* op) const {
    const PlanParams p{.op = op + std::strlen("lmx::"),
                       .groups = groups,
                       .alias = alias,
                       .block_m = block_m,
                       .num_tiles = tiles.size(0),
                       .perm = fresh<int32_t>(perm),
                       .offsets = fresh<int32_t>(offsets),
                       .tiles = fresh<int32_t>(tiles),
                       .info = fresh<int32_t>(info),
                       .status = status,
                       .space = space ? fresh<int32_t>(*space) : nullptr};
    call.run(LMX_KERNEL(plan), p);
    return {.perm = p.perm, .offsets = p.offsets, .tiles = p.tiles, .num_tiles = p.num_tiles};
  }
};

std::tuple<Tensor, Tensor, Tensor, Tensor> skip_plan(const Tensor& group, int64_t num_groups,
                                                     int64_t block_m, const OptTensor& alias,
                                                     const OptTensor& status) {
  constexpr auto kOp = "lmx::skip_plan";
  LMX_CHECK_SHAPE(group, -1);
  STD_TORCH_CHECK(num_groups >= 0 && num_groups <= kMaxCount, kOp,
                  ": expected num_groups in [0, 2^31), got ", num_groups);
  STD_TORCH_CHECK(block_m >= 1 && block_m <= kMaxCount, kOp,
                  ": expected block_m in [1, 2^31), got ", block_m);
  const GroupTensor groups(group, group, num_groups, kOp);
  const auto* aliases =
      vector_of<int32_t>(alias, num_groups, ScalarType::Int, group, kOp, "alias", "(num_groups)");
  const Call call(group);
  const PlanTensors plan(group, group.size(0), num_groups, block_m);
  plan.run(call, groups.get(), aliases, block_m, status_of(status, group.size(0), group, kOp), kOp);
  return {plan.perm, plan.offsets, plan.tiles, plan.info};
}

// The caller's plan, or one made here, or none where all rows are in group 0.
class PlanOf {
 public:
  PlanOf(const Call& call, const OptTensor& group, const OptTensors& given, const Tensor& x,
         int64_t num_groups, const OptTensor& status, const char* kOp) {
    const int64_t num_rows = x.size(0);
    int32_t* bits = status_of(status, num_rows, x, kOp);
    if (given) {
      check_plan(*given, x, num_groups, kOp);
      plan_ = {.perm = in<int32_t>((*given)[0]),
               .offsets = in<int32_t>((*given)[1]),
               .tiles = in<int32_t>((*given)[2]),
               .num_tiles = (*given)[2].size(0)};
      static const int32_t kNone = 0;  // an empty tensor has no address; null means "no plan"
      if (!plan_.perm) plan_.perm = &kNone;
    } else if (group) {
      groups_.emplace(*group, x, num_groups, kOp);
      tensors_.emplace(x, num_rows, num_groups, kTileRows);
      plan_ = tensors_->run(call, groups_->get(), nullptr, kTileRows, bits, kOp);
      static const int32_t kNone = 0;
      if (!plan_.perm) plan_.perm = &kNone;
    } else {
      STD_TORCH_CHECK(num_groups == 1, kOp, ": expected group where there are ", num_groups,
                      " weight groups, got None");
    }
  }
  const Plan& get() const { return plan_; }

 private:
  std::optional<GroupTensor> groups_;
  std::optional<PlanTensors> tensors_;
  Plan plan_;
};

// ---- gemm -----------------------------------------------------------------------------------
// Workspaces must outlive the call of the kernel; on CUDA the stream's allocator keeps them.
struct Workspace {
  std::optional<Tensor> partial;
  Workspace(const Tensor& x, int64_t n, int64_t k, int64_t outputs) {
    const int64_t floats = kOnDevice ? outputs * partial_floats(x.size(0), n, k) : 0;
    if (floats > 0) partial = new_tensor(x, {floats}, ScalarType::Float);
  }
  float* get() const { return partial ? fresh<float>(*partial) : nullptr; }
};

struct GemmArguments {
  const Tensor& x;
  const OptTensor &weight, &group;
  const OptTensors& weights;
  const OptTensor &bias, &residual, &row_scale, &weight_scale;
  const OptTensors& plan;
  const std::string &activation, &format, &skipped;
  const OptTensor& status;
};

void run_gemm(const char* kOp, const GemmArguments& a, const WeightTensors& w, const Tensor& out,
              Skipped skipped, bool out_is_fresh) {
  const Tensor& x = a.x;
  const int64_t num_rows = x.size(0);
  const Activation activation = activation_of(a.activation, kOp);
  GemmParams p{.x = matrix_in(x),
               .weights = w.get(),
               .plan = {},
               .num_rows = num_rows,
               .bias = nullptr,
               .residual = {},
               .row_scale = vector_of<float>(a.row_scale, num_rows, ScalarType::Float, x, kOp,
                                             "row_scale", "(num_rows)"),
               .out = out_is_fresh ? matrix_fresh(out) : matrix_out(out),
               .bias_dtype = DType::f32,
               .activation = activation,
               .skipped = skipped,
               .partial = nullptr,
               .status = status_of(a.status, num_rows, x, kOp)};
  if (a.bias) {
    check_shape(*a.bias, kOp, "bias", {p.weights.num_groups, p.weights.n}, "(num_groups, N)");
    check_contiguous(*a.bias, kOp, "bias");
    check_device(*a.bias, x, kOp, "bias", "x");
    p.bias_dtype = dtype_of(*a.bias, kOp, "bias");
    p.bias = in(*a.bias);
  }
  if (a.residual) p.residual = matrix_in(*a.residual);
  const Call call(x);
  const PlanOf plan(call, a.group, a.plan, x, p.weights.num_groups, a.status, kOp);
  p.plan = plan.get();
  const Workspace space(x, p.weights.n, p.weights.k, 1);
  p.partial = space.get();
  call.run(LMX_KERNEL(gemm), p);
}

void check_residual(const OptTensor& residual, const Tensor& x, int64_t n, const char* kOp) {
  if (!residual) return;
  check_shape(*residual, kOp, "residual", {x.size(0), n}, "(num_rows, N)");
  check_rows(*residual, kOp, "residual");
  check_device(*residual, x, kOp, "residual", "x");
  dtype_of(*residual, kOp, "residual");
}

Tensor skip_gemm(const Tensor& x, const OptTensor& weight, const OptTensor& group,
                 const OptTensors& weights, const OptTensor& bias, const OptTensor& residual,
                 const OptTensor& row_scale, const OptTensor& weight_scale, const OptTensors& plan,
                 const std::string& activation, const std::string& format,
                 const std::string& skipped, const std::optional<ScalarType>& out_dtype,
                 const OptTensor& status) {
  constexpr auto kOp = "lmx::skip_gemm";
  const WeightTensors w(x, weight, weights, weight_scale, format, kOp);
  const Skipped kind = skipped_of(skipped, residual.has_value(), false, kOp);
  check_residual(residual, x, w.n(), kOp);
  Tensor out = new_tensor(x, {x.size(0), w.n()}, out_type(out_dtype, x, kOp));
  run_gemm(kOp,
           {x, weight, group, weights, bias, residual, row_scale, weight_scale, plan, activation,
            format, skipped, status},
           w, out, kind, true);
  return out;
}

void skip_gemm_out(const Tensor& x, Tensor out, const OptTensor& weight, const OptTensor& group,
                   const OptTensors& weights, const OptTensor& bias, const OptTensor& residual,
                   const OptTensor& row_scale, const OptTensor& weight_scale,
                   const OptTensors& plan, const std::string& activation, const std::string& format,
                   const std::string& skipped, const OptTensor& status) {
  constexpr auto kOp = "lmx::skip_gemm_out";
  const WeightTensors w(x, weight, weights, weight_scale, format, kOp);
  const Skipped kind = skipped_of(skipped, residual.has_value(), true, kOp);
  check_shape(out, kOp, "out", {x.size(0), w.n()}, "(num_rows, N)");
  check_rows(out, kOp, "out");
  check_device(out, x, kOp, "out", "x");
  dtype_of(out, kOp, "out");
  check_residual(residual, x, w.n(), kOp);
  check_out(out, x, residual, w, kOp);
  run_gemm(kOp,
           {x, weight, group, weights, bias, residual, row_scale, weight_scale, plan, activation,
            format, skipped, status},
           w, out, kind, false);
}

Tensor skip_swiglu(const Tensor& x, const OptTensor& gate, const OptTensor& up,
                   const OptTensor& group, const OptTensors& gates, const OptTensors& ups,
                   const OptTensor& gate_scale, const OptTensor& up_scale, const OptTensors& plan,
                   const std::string& format, const std::optional<ScalarType>& out_dtype,
                   const OptTensor& status) {
  constexpr auto kOp = "lmx::skip_swiglu";
  const WeightTensors g(x, gate, gates, gate_scale, format, kOp, "gate");
  const WeightTensors u(x, up, ups, up_scale, format, kOp, "up");
  const Weights a = g.get(), b = u.get();
  STD_TORCH_CHECK(a.n == b.n && a.num_groups == b.num_groups && a.format == b.format, kOp,
                  ": expected gate and up of one shape and format, got ", a.num_groups, " x ", a.n,
                  " and ", b.num_groups, " x ", b.n);
  Tensor out = new_tensor(x, {x.size(0), a.n}, out_type(out_dtype, x, kOp));
  const Call call(x);
  const PlanOf chosen(call, group, plan, x, a.num_groups, status, kOp);
  const Workspace space(x, a.n, a.k, 2);
  call.run(LMX_KERNEL(swiglu), SwigluParams{.x = matrix_in(x),
                                            .gate = a,
                                            .up = b,
                                            .plan = chosen.get(),
                                            .num_rows = x.size(0),
                                            .out = matrix_fresh(out),
                                            .partial = space.get(),
                                            .status = status_of(status, x.size(0), x, kOp)});
  return out;
}

// ---- norms ----------------------------------------------------------------------------------
Tensor run_norm(const char* kOp, const Tensor& x, const Tensor& gamma, const OptTensor& beta,
                const OptTensor& group, double eps, const OptTensor& status, bool centred) {
  LMX_CHECK_SHAPE(x, -1, -1);
  LMX_DTYPE(x);
  check_rows(x, kOp, "x");
  const int64_t num_rows = x.size(0), width = x.size(1);
  LMX_CHECK_SHAPE(gamma, -1, width);
  LMX_CHECK_CONTIGUOUS(gamma);
  LMX_CHECK_DEVICE(gamma, x);
  const int64_t num_groups = gamma.size(0);
  if (beta) {
    check_shape(*beta, kOp, "beta", {num_groups, width}, "(num_groups, width)");
    check_dtype(*beta, kOp, "beta", gamma.scalar_type());
    check_contiguous(*beta, kOp, "beta");
    check_device(*beta, x, kOp, "beta", "x");
  }
  STD_TORCH_CHECK(eps >= 0, kOp, ": expected eps at least 0, got ", eps);
  STD_TORCH_CHECK(group || num_groups == 1, kOp, ": expected group where there are ", num_groups,
                  " weight groups, got None");
  std::optional<GroupTensor> groups;
  if (group) groups.emplace(*group, x, num_groups, kOp);
  const Call call(x);
  Tensor out = new_tensor(x, {num_rows, width}, x.scalar_type());
  call.run(LMX_KERNEL(norm),
           NormParams{.x = matrix_in(x),
                      .groups = groups ? groups->get() : Groups{nullptr, num_rows, num_groups},
                      .gamma = in(gamma),
                      .beta = in(beta),
                      .out = matrix_fresh(out),
                      .width = width,
                      .eps = static_cast<float>(eps),
                      .centred = centred,
                      .weight_dtype = LMX_DTYPE(gamma),
                      .status = status_of(status, num_rows, x, kOp)});
  return out;
}

Tensor skip_rmsnorm(const Tensor& x, const Tensor& gamma, const OptTensor& group, double eps,
                    const OptTensor& status) {
  return run_norm("lmx::skip_rmsnorm", x, gamma, std::nullopt, group, eps, status, false);
}

Tensor skip_layernorm(const Tensor& x, const Tensor& gamma, const OptTensor& beta,
                      const OptTensor& group, double eps, const OptTensor& status) {
  return run_norm("lmx::skip_layernorm", x, gamma, beta, group, eps, status, true);
}

// ---- gather and scatter ---------------------------------------------------------------------
GatherParams gather_params(const Tensor& from, const Tensor& to, const Tensor& perm,
                           int64_t num_rows, const OptTensor& status, const char* kOp) {
  check_rows(from, kOp, from.size(0) == num_rows ? "y" : "x");
  LMX_CHECK_DTYPE(perm, Int);
  LMX_CHECK_CONTIGUOUS(perm);
  LMX_CHECK_DEVICE(perm, from);
  const int64_t size = from.element_size();
  return {.from = in(from),
          .to = nullptr,
          .perm = in<int32_t>(perm),
          .num_rows = num_rows,
          .from_stride = from.stride(0) * size,
          .to_stride = to.stride(0) * size,
          .row_bytes = from.size(1) * size,
          .limit = 0,
          .scatter = false,
          .status = status_of(status, num_rows, from, kOp)};
}

Tensor skip_gather(const Tensor& x, const Tensor& perm, int64_t n, const OptTensor& status) {
  constexpr auto kOp = "lmx::skip_gather";
  LMX_CHECK_SHAPE(x, -1, -1);
  LMX_CHECK_SHAPE(perm, -1);
  STD_TORCH_CHECK(n >= 0 && n <= perm.size(0), kOp, ": expected n in [0, ", perm.size(0),
                  "], the length of perm, got ", n);
  const Call call(x);
  Tensor to = new_tensor(x, {n, x.size(1)}, x.scalar_type());
  GatherParams p = gather_params(x, to, perm, n, status, kOp);
  p.to = fresh<char>(to);
  p.limit = x.size(0);
  call.run(LMX_KERNEL(gather), p);
  return to;
}

void skip_scatter(const Tensor& y, const Tensor& perm, Tensor out, const OptTensor& status) {
  constexpr auto kOp = "lmx::skip_scatter";
  LMX_CHECK_SHAPE(y, -1, -1);
  LMX_CHECK_SHAPE(perm, -1);
  STD_TORCH_CHECK(perm.size(0) >= y.size(0), kOp, ": expected perm with at least ", y.size(0),
                  " entries, one for each row of y, got ", perm.size(0));
  LMX_CHECK_SHAPE(out, -1, y.size(1));
  check_rows(out, kOp, "out");
  LMX_CHECK_DEVICE(out, y);
  STD_TORCH_CHECK(out.scalar_type() == y.scalar_type(), kOp, ": expected out of the dtype of y, ",
                  torch::headeronly::toString(y.scalar_type()), ", got ",
                  torch::headeronly::toString(out.scalar_type()));
  STD_TORCH_CHECK(!overlap(out, y), kOp, ": expected out and y without common memory");
  const Call call(y);
  GatherParams p = gather_params(y, out, perm, y.size(0), status, kOp);
  p.to = lmx::out<char>(out);
  p.limit = out.size(0);
  p.scatter = true;
  call.run(LMX_KERNEL(gather), p);
}
}  // namespace

LMX_REGISTER(m) {
  LMX_IMPL(m, skip_plan);
  LMX_IMPL(m, skip_gemm);
  m.impl("skip_gemm_out", TORCH_BOX(&skip_gemm_out));
  LMX_IMPL(m, skip_swiglu);
  LMX_IMPL(m, skip_rmsnorm);
  LMX_IMPL(m, skip_layernorm);
  LMX_IMPL(m, skip_gather);
  m.impl("skip_scatter", TORCH_BOX(&skip_scatter));
}
}  // namespace lmx::layerskip
