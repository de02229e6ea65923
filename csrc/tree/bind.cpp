// csrc/tree/bind.cpp: the torch side of the room. Compiled once per backend, see common/backend.h.
#include "../common/backend.h"
#include "commit.h"
#include "prepare.h"
#include "recycle_expand.h"
#include "recycle_update.h"
#include "verify_greedy.h"
#include "verify_target.h"

namespace lmx::tree {
namespace {
using OptTensor = std::optional<Tensor>;
constexpr int64_t kMaxVocab = 1 << 24;

// ---- checks -------------------------------------------------------------------------------
void check_vector(const Tensor& t, int64_t size, ScalarType type, const Tensor& like,
                  const char* kOp, const char* name, const char* spelled, const char* like_name) {
  check_shape(t, kOp, name, {size}, spelled);
  check_dtype(t, kOp, name, type);
  check_contiguous(t, kOp, name);
  check_device(t, like, kOp, name, like_name);
}

void check_in(int64_t value, int64_t least, int64_t most, const char* name, const char* kOp) {
  STD_TORCH_CHECK(least <= value && value <= most, kOp, ": expected ", name, " in [", least, ", ",
                  most, "], got ", value);
}

// The trees of a call, whose per-row tensors have num_rows entries.
Trees trees_of(const Tensor& indptr, int64_t num_rows, const OptTensor& status, const char* kOp) {
  LMX_CHECK_SHAPE(indptr, -1);
  LMX_CHECK_DTYPE(indptr, Int);
  LMX_CHECK_CONTIGUOUS(indptr);
  STD_TORCH_CHECK(indptr.size(0) >= 1, kOp, ": expected indptr of shape (num_seqs + 1), got [0]");
  const int64_t num_seqs = indptr.size(0) - 1;
  if (status)
    check_vector(*status, num_seqs, ScalarType::Int, indptr, kOp, "status", "(num_seqs)", "indptr");
  return {.indptr = in<int32_t>(indptr),
          .num_seqs = num_seqs,
          .num_rows = num_rows,
          .status = out<int32_t>(status)};
}

// ---- trees --------------------------------------------------------------------------------
std::tuple<Tensor, Tensor, Tensor, Tensor> tree_prepare(const Tensor& parents, const Tensor& indptr,
                                                        int64_t max_nodes, const OptTensor& tokens,
                                                        int64_t vocab_size,
                                                        const OptTensor& status) {
  constexpr auto kOp = "lmx::tree_prepare";
  LMX_CHECK_SHAPE(parents, -1);
  LMX_CHECK_DTYPE(parents, Int);
  LMX_CHECK_CONTIGUOUS(parents);
  LMX_CHECK_DEVICE(indptr, parents);
  check_in(max_nodes, 0, kMaxNodes, "max_nodes", kOp);
  const int64_t rows = parents.size(0), words = ceil_div<int64_t>(max_nodes, 32);
  if (tokens)
    check_vector(*tokens, rows, ScalarType::Long, parents, kOp, "tokens", "(num_rows)", "parents");
  const Call call(parents);
  const Trees trees = trees_of(indptr, rows, status, kOp);
  Tensor depth = new_tensor(parents, {rows}, ScalarType::Int);
  Tensor first_child = new_tensor(parents, {rows}, ScalarType::Int);
  Tensor next_sibling = new_tensor(parents, {rows}, ScalarType::Int);
  Tensor ancestors = new_tensor(parents, {rows, words}, ScalarType::Int);
  call.run(LMX_KERNEL(prepare), PrepareParams{.trees = trees,
                                              .parents = in<int32_t>(parents),
                                              .tokens = in<int64_t>(tokens),
                                              .vocab_size = vocab_size,
                                              .max_nodes = max_nodes,
                                              .num_words = words,
                                              .depth = fresh<int32_t>(depth),
                                              .first_child = fresh<int32_t>(first_child),
                                              .next_sibling = fresh<int32_t>(next_sibling),
                                              .ancestors = fresh<uint32_t>(ancestors)});
  return {depth, first_child, next_sibling, ancestors};
}

// ---- verification -------------------------------------------------------------------------
struct WalkTensors {
  Tensor path, accept_length, out_tokens;
  WalkTensors(const Tensor& like, int64_t num_seqs, int64_t max_depth)
      : path(new_tensor(like, {num_seqs, max_depth + 1}, ScalarType::Int)),
        accept_length(new_tensor(like, {num_seqs}, ScalarType::Int)),
        out_tokens(new_tensor(like, {num_seqs, max_depth + 1}, ScalarType::Long)) {}
};

void check_tree(const Tensor& tokens, const Tensor& indptr, const Tensor& first_child,
                const Tensor& next_sibling, int64_t max_depth, const char* kOp) {
  LMX_CHECK_SHAPE(tokens, -1);
  LMX_CHECK_DTYPE(tokens, Long);
  LMX_CHECK_CONTIGUOUS(tokens);
  LMX_CHECK_DEVICE(indptr, tokens);
  const int64_t rows = tokens.size(0);
  check_vector(first_child, rows, ScalarType::Int, tokens, kOp, "first_child", "(num_rows)",
               "tokens");
  check_vector(next_sibling, rows, ScalarType::Int, tokens, kOp, "next_sibling", "(num_rows)",
               "tokens");
  check_in(max_depth, 0, kMaxNodes - 1, "max_depth", kOp);
}

WalkParams walk_of(const Trees& trees, const Tensor& tokens, const Tensor& first_child,
                   const Tensor& next_sibling, int64_t max_depth, const WalkTensors& results) {
  return {.trees = trees,
          .tokens = in<int64_t>(tokens),
          .first_child = in<int32_t>(first_child),
          .next_sibling = in<int32_t>(next_sibling),
          .max_depth = max_depth,
          .path = fresh<int32_t>(results.path),
          .accept_length = fresh<int32_t>(results.accept_length),
          .out_tokens = fresh<int64_t>(results.out_tokens)};
}

std::tuple<Tensor, Tensor, Tensor> tree_verify_greedy(const Tensor& tokens, const Tensor& indptr,
                                                      const Tensor& first_child,
                                                      const Tensor& next_sibling,
                                                      const Tensor& target_ids, int64_t max_depth,
                                                      const OptTensor& status) {
  constexpr auto kOp = "lmx::tree_verify_greedy";
  check_tree(tokens, indptr, first_child, next_sibling, max_depth, kOp);
  check_vector(target_ids, tokens.size(0), ScalarType::Long, tokens, kOp, "target_ids",
               "(num_rows)", "tokens");
  const Call call(tokens);
  const Trees trees = trees_of(indptr, tokens.size(0), status, kOp);
  const WalkTensors results(tokens, trees.num_seqs, max_depth);
  call.run(LMX_KERNEL(verify_greedy),
           VerifyGreedyParams{
               .walk = walk_of(trees, tokens, first_child, next_sibling, max_depth, results),
               .target_ids = in<int64_t>(target_ids)});
  return {results.path, results.accept_length, results.out_tokens};
}

std::tuple<Tensor, Tensor, Tensor> tree_verify_target(
    const Tensor& tokens, const Tensor& indptr, const Tensor& first_child,
    const Tensor& next_sibling, const Tensor& target_probs, const Tensor& u_node,
    const Tensor& u_final, int64_t max_depth, double threshold_single, double threshold_acc,
    const OptTensor& status) {
  constexpr auto kOp = "lmx::tree_verify_target";
  check_tree(tokens, indptr, first_child, next_sibling, max_depth, kOp);
  const int64_t rows = tokens.size(0);
  LMX_CHECK_SHAPE(target_probs, rows, -1);
  LMX_CHECK_DTYPE(target_probs, Float);
  LMX_CHECK_CONTIGUOUS(target_probs);
  LMX_CHECK_DEVICE(target_probs, tokens);
  const int64_t vocab_size = target_probs.size(1);
  check_in(vocab_size, 0, kMaxVocab, "vocab_size", kOp);
  check_vector(u_node, rows, ScalarType::Float, tokens, kOp, "u_node", "(num_rows)", "tokens");
  // Written so that a NaN fails.
  STD_TORCH_CHECK(threshold_single >= 0.0 && threshold_acc >= 0.0, kOp,
                  ": expected thresholds >= 0, got threshold_single ", threshold_single,
                  " and threshold_acc ", threshold_acc);
  const Call call(tokens);
  const Trees trees = trees_of(indptr, rows, status, kOp);
  check_vector(u_final, trees.num_seqs, ScalarType::Float, tokens, kOp, "u_final", "(num_seqs)",
               "tokens");
  const WalkTensors results(tokens, trees.num_seqs, max_depth);
  const int64_t num_blocks = ceil_div<int64_t>(vocab_size, kDrawBlock);
  Tensor sums = new_tensor(tokens, {trees.num_seqs, num_blocks}, ScalarType::Float);
  constexpr double kLeastThreshold = 1e-9;
  call.run(LMX_KERNEL(verify_target),
           VerifyTargetParams{
               .walk = walk_of(trees, tokens, first_child, next_sibling, max_depth, results),
               .probs = in<float>(target_probs),
               .u_node = in<float>(u_node),
               .u_final = in<float>(u_final),
               .vocab_size = vocab_size,
               .num_blocks = num_blocks,
               .threshold_single = threshold_single,
               .threshold_acc = std::max(threshold_acc, kLeastThreshold),
               .sums = fresh<float>(sums)});
  return {results.path, results.accept_length, results.out_tokens};
}

// ---- commit -------------------------------------------------------------------------------
Tensor tree_commit(const Tensor& path, const Tensor& accept_length, const Tensor& indptr,
                   const Tensor& block_table, const Tensor& num_slots, int64_t num_rows,
                   int64_t page_size, int64_t num_pages, const OptTensor& status) {
  constexpr auto kOp = "lmx::tree_commit";
  check_in(num_rows, 0, INT32_MAX, "num_rows", kOp);
  check_in(page_size, 1, 1 << 20, "page_size", kOp);
  check_in(num_pages, 0, INT32_MAX, "num_pages", kOp);
  LMX_CHECK_DEVICE(indptr, path);
  const Call call(path);
  const Trees trees = trees_of(indptr, num_rows, status, kOp);
  LMX_CHECK_SHAPE(path, trees.num_seqs, -1);
  LMX_CHECK_DTYPE(path, Int);
  LMX_CHECK_CONTIGUOUS(path);
  check_vector(accept_length, trees.num_seqs, ScalarType::Int, path, kOp, "accept_length",
               "(num_seqs)", "path");
  LMX_CHECK_SHAPE(block_table, trees.num_seqs, -1, -1);
  LMX_CHECK_DTYPE(block_table, Int);
  LMX_CHECK_CONTIGUOUS(block_table);
  LMX_CHECK_DEVICE(block_table, path);
  const int64_t table_rows = block_table.size(1);
  LMX_CHECK_SHAPE(num_slots, trees.num_seqs, table_rows);
  LMX_CHECK_DTYPE(num_slots, Int);
  LMX_CHECK_CONTIGUOUS(num_slots);
  LMX_CHECK_DEVICE(num_slots, path);
  Tensor slot_mapping = new_tensor(path, {table_rows, num_rows}, ScalarType::Long);
  call.run(LMX_KERNEL(commit), CommitParams{.trees = trees,
                                            .path = in<int32_t>(path),
                                            .accept_length = in<int32_t>(accept_length),
                                            .block_table = in<int32_t>(block_table),
                                            .num_slots = in<int32_t>(num_slots),
                                            .width = path.size(1),
                                            .table_rows = table_rows,
                                            .max_pages = block_table.size(2),
                                            .page_size = page_size,
                                            .num_pages = num_pages,
                                            .slot_mapping = fresh<int64_t>(slot_mapping)});
  return slot_mapping;
}

// ---- token recycling ----------------------------------------------------------------------
void check_matrix(const Tensor& matrix, const OptTensor& matrix_ids, int64_t num_seqs,
                  const char* kOp) {
  LMX_CHECK_SHAPE(matrix, -1, -1, -1);
  LMX_CHECK_DTYPE(matrix, Int);
  LMX_CHECK_CONTIGUOUS(matrix);
  check_in(matrix.size(1), 0, INT32_MAX, "vocab_size", kOp);
  check_in(matrix.size(2), 1, kMaxCandidates, "k", kOp);
  if (matrix_ids)
    check_vector(*matrix_ids, num_seqs, ScalarType::Int, matrix, kOp, "matrix_ids", "(num_seqs)",
                 "matrix");
  else
    STD_TORCH_CHECK(matrix.size(0) == 1 || matrix.size(0) == num_seqs, kOp,
                    ": expected one matrix, or one per sequence = ", num_seqs,
                    ", where matrix_ids is not given, got ", matrix.size(0));
}

std::tuple<Tensor, Tensor, Tensor, Tensor> tree_recycle_expand(
    const Tensor& matrix, const Tensor& roots, const Tensor& template_parent,
    const Tensor& template_rank, const OptTensor& sizes, const OptTensor& matrix_ids,
    const OptTensor& status) {
  constexpr auto kOp = "lmx::tree_recycle_expand";
  LMX_CHECK_SHAPE(roots, -1);
  const int64_t num_seqs = roots.size(0);
  check_matrix(matrix, matrix_ids, num_seqs, kOp);
  check_vector(roots, num_seqs, ScalarType::Long, matrix, kOp, "roots", "(num_seqs)", "matrix");
  LMX_CHECK_SHAPE(template_parent, -1);
  const int64_t n = template_parent.size(0);
  check_in(n, 1, kMaxNodes, "nodes of the template", kOp);
  check_vector(template_parent, n, ScalarType::Int, matrix, kOp, "template_parent", "(num_nodes)",
               "matrix");
  check_vector(template_rank, n, ScalarType::Int, matrix, kOp, "template_rank", "(num_nodes)",
               "matrix");
  if (sizes)
    check_vector(*sizes, num_seqs, ScalarType::Int, matrix, kOp, "sizes", "(num_seqs)", "matrix");
  if (status)
    check_vector(*status, num_seqs, ScalarType::Int, matrix, kOp, "status", "(num_seqs)", "matrix");
  const Call call(matrix);
  Tensor padded = new_tensor(matrix, {num_seqs, n}, ScalarType::Long);
  Tensor counts = new_tensor(matrix, {num_seqs}, ScalarType::Int);
  Tensor tokens = new_tensor(matrix, {num_seqs * n}, ScalarType::Long);
  Tensor parents = new_tensor(matrix, {num_seqs * n}, ScalarType::Int);
  Tensor indptr = new_tensor(matrix, {num_seqs + 1}, ScalarType::Int);
  Tensor nodes = new_tensor(matrix, {num_seqs * n}, ScalarType::Int);
  call.run(LMX_KERNEL(recycle_expand),
           RecycleExpandParams{.matrix = in<int32_t>(matrix),
                               .roots = in<int64_t>(roots),
                               .template_parent = in<int32_t>(template_parent),
                               .template_rank = in<int32_t>(template_rank),
                               .sizes = in<int32_t>(sizes),
                               .matrix_ids = in<int32_t>(matrix_ids),
                               .num_matrices = matrix.size(0),
                               .vocab_size = matrix.size(1),
                               .k = matrix.size(2),
                               .num_seqs = num_seqs,
                               .num_nodes = n,
                               .padded = fresh<int64_t>(padded),
                               .counts = fresh<int32_t>(counts),
                               .tokens = fresh<int64_t>(tokens),
                               .parents = fresh<int32_t>(parents),
                               .indptr = fresh<int32_t>(indptr),
                               .nodes = fresh<int32_t>(nodes),
                               .status = out<int32_t>(status)});
  return {tokens, parents, indptr, nodes};
}

void tree_recycle_update(const Tensor& matrix, const Tensor& tokens, const Tensor& logits,
                         const Tensor& indptr, const OptTensor& path, const OptTensor& matrix_ids,
                         const OptTensor& status) {
  constexpr auto kOp = "lmx::tree_recycle_update";
  LMX_CHECK_SHAPE(tokens, -1);
  const int64_t rows = tokens.size(0);
  LMX_CHECK_DEVICE(indptr, matrix);
  const Call call(matrix);
  const Trees trees = trees_of(indptr, rows, status, kOp);
  check_matrix(matrix, matrix_ids, trees.num_seqs, kOp);
  check_vector(tokens, rows, ScalarType::Long, matrix, kOp, "tokens", "(num_rows)", "matrix");
  LMX_CHECK_SHAPE(logits, rows, matrix.size(1));
  LMX_CHECK_DTYPE(logits, Float);
  LMX_CHECK_CONTIGUOUS(logits);
  LMX_CHECK_DEVICE(logits, matrix);
  if (path) {
    check_shape(*path, kOp, "path", {trees.num_seqs, -1}, "(num_seqs, max_depth + 1)");
    check_dtype(*path, kOp, "path", ScalarType::Int);
    check_contiguous(*path, kOp, "path");
    check_device(*path, matrix, kOp, "path", "matrix");
  }
  Tensor owner = new_tensor(matrix, {rows}, ScalarType::Int);
  Tensor weight = new_tensor(matrix, {rows}, ScalarType::Long);
  call.run(LMX_KERNEL(recycle_update), RecycleUpdateParams{.trees = trees,
                                                           .tokens = in<int64_t>(tokens),
                                                           .logits = in<float>(logits),
                                                           .path = in<int32_t>(path),
                                                           .matrix_ids = in<int32_t>(matrix_ids),
                                                           .width = path ? path->size(1) : 0,
                                                           .num_matrices = matrix.size(0),
                                                           .vocab_size = matrix.size(1),
                                                           .k = matrix.size(2),
                                                           .owner = fresh<int32_t>(owner),
                                                           .weight = fresh<int64_t>(weight),
                                                           .matrix = out<int32_t>(matrix)});
}
}  // namespace
}  // namespace lmx::tree

LMX_REGISTER(m) {
  using namespace lmx::tree;
  LMX_IMPL(m, tree_prepare);
  LMX_IMPL(m, tree_verify_greedy);
  LMX_IMPL(m, tree_verify_target);
  LMX_IMPL(m, tree_commit);
  LMX_IMPL(m, tree_recycle_expand);
  m.impl("tree_recycle_update", TORCH_BOX(&tree_recycle_update));
}
