// csrc/ops.cpp
// Every operator of lmx, in one place: the table of contents of csrc/.
// Kernels are registered next to their code, in csrc/<room>/bind.cpp.
// (a!) marks an argument the op writes to; an op that has one, `status` apart, returns ().
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(LMX_NAMESPACE, m) {  // lmx; lmx_simt in the test harness
  // attention: one attention over pages and the keys of a step                     csrc/attention
  m.def(
      "attention_paged(Tensor query, Tensor key, Tensor value, Tensor cu_seqlens_q, "
      "Tensor cu_seqlens_k, Tensor? ancestors, Tensor kv_pages, Tensor block_table, "
      "Tensor num_slots, Tensor query_pos, Tensor key_pos, *, float softmax_scale, "
      "bool causal=True, int window=-1, int num_sinks=0, float softcap=0.0, "
      "Tensor? alibi_slopes=None, Tensor? slot_pos=None, Tensor? slot_pos_table=None, "
      "Tensor? kv_scale=None, Tensor? key_keep=None, str part=\"all\", "
      "str key_store=\"post_rope\", str positions=\"orig\", int clamp=0, Tensor? cos=None, "
      "Tensor? sin=None, Tensor? slot_rank=None, Tensor? query_rank=None, "
      "str transform=\"softmax\", int transform_power=15, Tensor? transform_n=None, "
      "Tensor? row_weight=None, Tensor? lse_in=None, int max_q, int max_slots, "
      "Tensor(a!)? status=None) -> "
      "(Tensor out, Tensor lse, Tensor column_prefix, Tensor column_fresh)");
  m.def(
      "attention_rope(Tensor query, Tensor key, Tensor cos, Tensor sin, Tensor positions, "
      "bool interleaved=False, Tensor(a!)? status=None) -> (Tensor query_out, Tensor key_out)");
  m.def(
      "attention_merge(Tensor out_a, Tensor lse_a, Tensor out_b, Tensor lse_b) -> "
      "(Tensor out, Tensor lse)");
  // kvcache: paged keys and values                                                   csrc/kvcache
  m.def(
      "kv_append(Tensor key, Tensor value, Tensor slot_mapping, Tensor(a!) kv_pages, "
      "Tensor(b!)? scale=None, Tensor? meta_slots=None, Tensor? pos=None, Tensor? score=None, "
      "Tensor(c!)? meta_pos=None, Tensor(d!)? meta_score=None, Tensor(e!)? status=None) -> ()");
  m.def(
      "kv_copy_pages(Tensor src, Tensor dst, Tensor(a!) kv_pages, Tensor(b!)? status=None) -> ()");
  m.def(
      "kv_swap_pages(Tensor page_ids, Tensor(a!) kv_pages, Tensor(b!) host_pages, "
      "str direction, Tensor(c!)? status=None) -> ()");
  m.def(
      "kv_gather_slots(Tensor kv_pages, Tensor block_table, Tensor num_slots, Tensor slots, "
      "Tensor(a!)? status=None) -> (Tensor key, Tensor value)");
  m.def(
      "kv_scatter_slots(Tensor key, Tensor value, Tensor block_table, Tensor num_slots, "
      "Tensor slots, Tensor(a!) kv_pages, Tensor(b!)? status=None) -> ()");
  // layerskip: the GEMM, norms and plans whose rows each have a weight group       csrc/layerskip
  m.def(
      "skip_plan(Tensor group, int num_groups, int block_m=128, Tensor? alias=None, "
      "Tensor(a!)? status=None) -> (Tensor perm, Tensor offsets, Tensor tiles, Tensor info)");
  m.def(
      "skip_gemm(Tensor x, Tensor? weight=None, Tensor? group=None, *, Tensor[]? weights=None, "
      "Tensor? bias=None, Tensor? residual=None, Tensor? row_scale=None, "
      "Tensor? weight_scale=None, Tensor[]? plan=None, str activation=\"none\", "
      "str format=\"dense\", str skipped=\"auto\", ScalarType? out_dtype=None, "
      "Tensor(a!)? status=None) -> Tensor");
  m.def(
      "skip_gemm_out(Tensor x, Tensor(a!) out, Tensor? weight=None, Tensor? group=None, *, "
      "Tensor[]? weights=None, Tensor? bias=None, Tensor? residual=None, Tensor? row_scale=None, "
      "Tensor? weight_scale=None, Tensor[]? plan=None, str activation=\"none\", "
      "str format=\"dense\", str skipped=\"auto\", Tensor(b!)? status=None) -> ()");
  m.def(
      "skip_swiglu(Tensor x, Tensor? gate=None, Tensor? up=None, Tensor? group=None, *, "
      "Tensor[]? gates=None, Tensor[]? ups=None, Tensor? gate_scale=None, "
      "Tensor? up_scale=None, Tensor[]? plan=None, str format=\"dense\", "
      "ScalarType? out_dtype=None, Tensor(a!)? status=None) -> Tensor");
  m.def(
      "skip_rmsnorm(Tensor x, Tensor gamma, Tensor? group=None, float eps=1e-6, "
      "Tensor(a!)? status=None) -> Tensor");
  m.def(
      "skip_layernorm(Tensor x, Tensor gamma, Tensor? beta=None, Tensor? group=None, "
      "float eps=1e-5, Tensor(a!)? status=None) -> Tensor");
  m.def("skip_gather(Tensor x, Tensor perm, int n, Tensor(a!)? status=None) -> Tensor");
  m.def("skip_scatter(Tensor y, Tensor perm, Tensor(a!) out, Tensor(b!)? status=None) -> ()");
  // vocab: row operations over the vocabulary                                          csrc/vocab
  m.def(
      "vocab_argmax(Tensor logits, Tensor? token_bitmask=None, Tensor? mask_ids=None, "
      "Tensor(a!)? status=None) -> Tensor token");
  m.def(
      "vocab_softmax(Tensor logits, Tensor? token_bitmask=None, Tensor? mask_ids=None, "
      "Tensor? temperature=None, Tensor? top_k=None, Tensor? top_p=None, Tensor? min_p=None, "
      "Tensor(a!)? status=None) -> Tensor probs");
  m.def(
      "vocab_lse(Tensor logits, Tensor? token_bitmask=None, Tensor? mask_ids=None, "
      "Tensor? temperature=None, Tensor(a!)? status=None) -> (Tensor lse_all, Tensor lse_masked)");
  m.def("vocab_logprobs(Tensor logits, Tensor targets, Tensor(a!)? status=None) -> Tensor logprob");
  m.def(
      "vocab_sample(Tensor logits, Tensor uniforms, Tensor? token_bitmask=None, "
      "Tensor? mask_ids=None, Tensor? temperature=None, Tensor? top_k=None, Tensor? top_p=None, "
      "Tensor? min_p=None, Tensor(a!)? status=None) -> (Tensor token, Tensor logprob)");
  m.def(
      "vocab_uniform(Tensor seeds, Tensor positions, int purpose, Tensor? indices=None, "
      "Tensor? hi=None) -> Tensor uniform");
  m.def(
      "vocab_mask_apply_(Tensor(a!) logits, Tensor token_bitmask, Tensor? mask_ids=None, "
      "Tensor(b!)? status=None) -> ()");
  m.def("vocab_mask_from_bool(Tensor allowed) -> Tensor token_bitmask");
  m.def("vocab_mask_to_bool(Tensor token_bitmask, int vocab_size) -> Tensor allowed");
  m.def("vocab_mask_and_(Tensor(a!) token_bitmask, Tensor other) -> ()");
  m.def("vocab_mask_or_(Tensor(a!) token_bitmask, Tensor other) -> ()");
  m.def("vocab_mask_popcount(Tensor token_bitmask, int vocab_size=-1) -> Tensor count");
  // ngram: suffix-array indexes of a corpus                                             csrc/ngram
  m.def("ngram_sa_build(Tensor text, int vocab_size, int num_suffixes) -> Tensor sa");
  m.def(
      "ngram_find(Tensor text, Tensor sa, Tensor lut, Tensor skey, Tensor shards, Tensor qtok, "
      "Tensor qoff, int vocab_size, int ptr_bytes=0, Tensor? hint=None, Tensor(a!)? "
      "status=None) -> (Tensor rng, Tensor cnt)");
  m.def(
      "ngram_longest_suffix(Tensor text, Tensor sa, Tensor lut, Tensor skey, Tensor shards, "
      "Tensor qtok, Tensor qoff, int vocab_size, int ptr_bytes=0, int max_len=0, int "
      "min_count=1, Tensor? prev_len=None, Tensor(a!)? status=None) -> (Tensor len, Tensor rng, "
      "Tensor cnt)");
  m.def(
      "ngram_longest_prefix(Tensor text, Tensor sa, Tensor lut, Tensor skey, Tensor shards, "
      "Tensor qtok, Tensor qoff, int vocab_size, int ptr_bytes=0, Tensor(a!)? status=None) -> "
      "Tensor len");
  m.def(
      "ngram_next_prob(Tensor text, Tensor sa, Tensor lut, Tensor skey, Tensor shards, Tensor "
      "rng, Tensor depth, Tensor tok, int vocab_size, int eos_id=-1, int ptr_bytes=0, "
      "Tensor(a!)? status=None) -> (Tensor num, Tensor den)");
  m.def(
      "ngram_ntd(Tensor text, Tensor sa, Tensor lut, Tensor skey, Tensor shards, Tensor rng, "
      "Tensor depth, int vocab_size, int capacity, int eos_id=-1, int ptr_bytes=0, int "
      "max_support=0, Tensor(a!)? status=None) -> (Tensor crow, Tensor tok, Tensor num, Tensor "
      "den, Tensor approx)");
  m.def(
      "ngram_ntd_dense(Tensor text, Tensor sa, Tensor lut, Tensor skey, Tensor shards, Tensor "
      "rng, Tensor depth, int vocab_size, int eos_id=-1, int ptr_bytes=0, int max_support=0, "
      "Tensor(a!)? status=None) -> Tensor probs");
  m.def(
      "ngram_ntd_topk(Tensor text, Tensor sa, Tensor lut, Tensor skey, Tensor shards, Tensor "
      "rng, Tensor depth, int vocab_size, int k, int eos_id=-1, int ptr_bytes=0, int "
      "max_support=0, Tensor(a!)? status=None) -> (Tensor tok, Tensor num)");
  m.def(
      "ngram_score(Tensor text, Tensor sa, Tensor lut, Tensor skey, Tensor shards, Tensor qtok, "
      "Tensor qoff, int vocab_size, int eos_id=-1, int ptr_bytes=0, int max_len=0, int "
      "min_count=1, Tensor(a!)? status=None) -> (Tensor suffix_len, Tensor den, Tensor num, "
      "Tensor distinct)");
  m.def(
      "ngram_locate(Tensor text, Tensor sa, Tensor lut, Tensor skey, Tensor shards, Tensor "
      "docs, Tensor rng, int vocab_size, int k, int seed=0, int ptr_bytes=0, Tensor(a!)? "
      "status=None) -> Tensor found");
  m.def(
      "ngram_mix(Tensor logits, Tensor lse, Tensor crow, Tensor tok, Tensor num, float "
      "lam_sparse, float lam_dense, Tensor? suffix_len=None, int min_suffix_len=0, Tensor(a!)? "
      "status=None) -> Tensor logprobs");
  m.def(
      "vocab_mask_gather(Tensor pool, Tensor mask_ids, int vocab_size=-1, "
      "Tensor(a!)? status=None) -> Tensor token_bitmask");
  // grammar: exact masks from grammars; handles are matchers of the host            csrc/grammar
  m.def(
      "grammar_fill(Tensor handles, Tensor(a!) bitmask, Tensor(b!) status, Tensor? rows=None, "
      "int num_threads=1) -> ()");
  m.def("grammar_accept(Tensor handles, Tensor tokens) -> Tensor accepted");
  m.def(
      "grammar_fill_tree(Tensor handle, Tensor parents, Tensor tokens, Tensor(a!) bitmask, "
      "Tensor(b!) valid, bool root_is_current=False) -> ()");
  m.def(
      "grammar_step(Tensor states, Tensor tokens, Tensor transitions, Tensor classes, "
      "Tensor symbols, Tensor offsets, Tensor(a!)? status=None) -> Tensor next");
}
