// csrc/grammar/bind.cpp: the torch side of the room. Compiled once per backend, see
// common/backend.h; operators on handles are of the CPU alone.
#include "../common/backend.h"
#include "step.h"
#ifdef LMX_BACKEND_CPU
#include "../grammar/host/ops.h"
#endif

namespace lmx::grammar {
namespace {
using OptTensor = std::optional<Tensor>;

Tensor grammar_step(const Tensor& states, const Tensor& tokens, const Tensor& transitions,
                    const Tensor& classes, const Tensor& symbols, const Tensor& offsets,
                    const OptTensor& status) {
  constexpr auto kOp = "lmx::grammar_step";
  LMX_CHECK_SHAPE(states, -1);
  LMX_CHECK_DTYPE(states, Int);
  const int64_t num_rows = states.size(0);
  const auto check = [&](const Tensor& t, const char* name, std::initializer_list<int64_t> shape,
                         const char* spelled, ScalarType type) {
    check_shape(t, kOp, name, shape, spelled);
    check_dtype(t, kOp, name, type);
    check_contiguous(t, kOp, name);
    check_device(t, states, kOp, name, "states");
  };
  check(states, "states", {-1}, "(num_rows)", ScalarType::Int);
  check(tokens, "tokens", {num_rows}, "(num_rows)", ScalarType::Long);
  check(transitions, "transitions", {-1, -1}, "(num_states, num_classes)", ScalarType::Short);
  check(classes, "classes", {kNumSymbols}, "(258)", ScalarType::Short);
  check(symbols, "symbols", {-1}, "(num_symbols)", ScalarType::Short);
  check(offsets, "offsets", {-1}, "(vocab_size + 1)", ScalarType::Int);
  STD_TORCH_CHECK(offsets.size(0) > 0, kOp, ": expected offsets of at least one entry, got none");
  if (status) check(*status, "status", {num_rows}, "(num_rows)", ScalarType::Int);
  const Call call(states);
  Tensor next = new_tensor(states, {num_rows}, ScalarType::Int);
  call.run(LMX_KERNEL(step), StepParams{.states = in<int32_t>(states),
                                        .tokens = in<int64_t>(tokens),
                                        .transitions = in<uint16_t>(transitions),
                                        .classes = in<int16_t>(classes),
                                        .symbols = in<int16_t>(symbols),
                                        .offsets = in<int32_t>(offsets),
                                        .next = fresh<int32_t>(next),
                                        .status = out<int32_t>(status),
                                        .num_rows = num_rows,
                                        .num_states = transitions.size(0),
                                        .num_classes = transitions.size(1),
                                        .num_symbols = symbols.size(0),
                                        .vocab_size = offsets.size(0) - 1});
  return next;
}

#ifdef LMX_BACKEND_CPU
void check_vector(const Tensor& t, const char* kOp, const char* name, int64_t size,
                  ScalarType type) {
  check_shape(t, kOp, name, {size}, size < 0 ? "(n)" : "(num_matchers)");
  check_dtype(t, kOp, name, type);
  check_contiguous(t, kOp, name);
}

void check_bitmask(const Tensor& bitmask, const char* kOp) {
  LMX_CHECK_SHAPE(bitmask, -1, -1);
  LMX_CHECK_DTYPE(bitmask, Int);
  LMX_CHECK_CONTIGUOUS(bitmask);
}

void grammar_fill(const Tensor& handles, const Tensor& bitmask, const Tensor& status,
                  const OptTensor& rows, int64_t num_threads) {
  constexpr auto kOp = "lmx::grammar_fill";
  check_vector(handles, kOp, "handles", -1, ScalarType::Long);
  const int64_t n = handles.size(0);
  check_bitmask(bitmask, kOp);
  check_vector(status, kOp, "status", n, ScalarType::Int);
  if (rows) check_vector(*rows, kOp, "rows", n, ScalarType::Int);
  fill_handles({.handles = in<int64_t>(handles),
                .rows = in<int32_t>(rows),
                .bitmask = out<uint32_t>(bitmask),
                .status = out<int32_t>(status),
                .num_matchers = n,
                .num_rows = bitmask.size(0),
                .num_words = bitmask.size(1),
                .num_threads = num_threads});
}

Tensor grammar_accept(const Tensor& handles, const Tensor& tokens) {
  constexpr auto kOp = "lmx::grammar_accept";
  check_vector(handles, kOp, "handles", -1, ScalarType::Long);
  const int64_t n = handles.size(0);
  check_vector(tokens, kOp, "tokens", n, ScalarType::Long);
  Tensor accepted = new_tensor(handles, {n}, ScalarType::Bool);
  accept_handles(in<int64_t>(handles), in<int64_t>(tokens), fresh<bool>(accepted), n);
  return accepted;
}

void grammar_fill_tree(const Tensor& handle, const Tensor& parents, const Tensor& tokens,
                       const Tensor& bitmask, const Tensor& valid, bool root_is_current) {
  constexpr auto kOp = "lmx::grammar_fill_tree";
  check_shape(handle, kOp, "handle", {1}, "(1)");
  check_dtype(handle, kOp, "handle", ScalarType::Long);
  check_vector(parents, kOp, "parents", -1, ScalarType::Int);
  const int64_t n = parents.size(0);
  check_vector(tokens, kOp, "tokens", n, ScalarType::Long);
  check_bitmask(bitmask, kOp);
  check_vector(valid, kOp, "valid", n, ScalarType::Int);
  STD_TORCH_CHECK(bitmask.size(0) == n, kOp, ": expected bitmask of ", n, " rows, got ",
                  bitmask.size(0));
  fill_tree_handle(*in<int64_t>(handle), {.parents = in<int32_t>(parents),
                                          .tokens = in<int64_t>(tokens),
                                          .bitmask = out<uint32_t>(bitmask),
                                          .valid = out<int32_t>(valid),
                                          .num_nodes = n,
                                          .num_words = bitmask.size(1),
                                          .root_is_current = root_is_current});
}
#endif
}  // namespace

LMX_REGISTER(m) {
  LMX_IMPL(m, grammar_step);
#ifdef LMX_BACKEND_CPU
  m.impl("grammar_fill", TORCH_BOX(&grammar_fill));
  m.impl("grammar_accept", TORCH_BOX(&grammar_accept));
  m.impl("grammar_fill_tree", TORCH_BOX(&grammar_fill_tree));
#endif
}
}  // namespace lmx::grammar
