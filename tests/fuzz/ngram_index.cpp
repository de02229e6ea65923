// tests/fuzz/ngram_index.cpp: queries over damaged indexes, without torch. Built with ASan and
// UBSan by tests/ngram/test_ngram_fuzz.py; arguments: seed, seconds. Every tensor is its own
// allocation of the exact size, so that a read beside it ends the program.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>

#include "common/parallel.h"
#include "ngram/find.h"
#include "ngram/host/searcher.h"
#include "ngram/host/tables.h"
#include "ngram/locate.h"
#include "ngram/longest_prefix.h"
#include "ngram/longest_suffix.h"
#include "ngram/next.h"
#include "ngram/score.h"

namespace lmx {
void parallel_for_impl(int64_t begin, int64_t end, int64_t, void (*body)(int64_t, int64_t, void*),
                       void* context) {
  if (begin < end) body(begin, end, context);
}
}  // namespace lmx

namespace {
using namespace lmx::ngram;
using Random = std::mt19937_64;

int64_t below(Random& random, int64_t n) {
  return static_cast<int64_t>(random() % static_cast<uint64_t>(n));
}

template <typename Token>
struct Data {
  std::vector<Token> text;
  std::vector<uint32_t> sa;
  std::vector<uint8_t> bytes;  // the same in foreign form
  std::vector<int64_t> lut, docs, shards;
  std::vector<uint64_t> skey;
  int64_t vocab_size = 0;
  int ptr_bytes = 0;
};

template <typename Token>
Data<Token> make(Random& random) {
  constexpr auto kSep = static_cast<Token>(~Token{0});
  Data<Token> d;
  d.vocab_size = 1 + below(random, 9);
  d.text = {kSep};
  d.docs = {0};
  for (int64_t doc = below(random, 5); doc >= 0; --doc) {
    for (int64_t n = below(random, 60); n > 0; --n)
      d.text.push_back(static_cast<Token>(below(random, d.vocab_size)));
    d.docs.push_back(static_cast<int64_t>(d.text.size()));
    d.text.push_back(kSep);
  }
  const auto n = static_cast<int64_t>(d.text.size());
  const int64_t m = n - static_cast<int64_t>(d.docs.size());
  std::vector<int32_t> all(d.text.size());
  Tables t{};
  t.text = d.text.data(), t.num_tokens = n, t.token_bytes = sizeof(Token);
  t.vocab_size = d.vocab_size;
  Job job;
  sort_shard(t, all.data(), job);
  d.sa.assign(all.begin(), all.begin() + m);
  d.lut.resize(static_cast<size_t>(d.vocab_size) + 2);
  d.skey.resize(static_cast<size_t>((m + 63) / 64));
  t.sa = d.sa.data(), t.num_suffixes = m, t.lut = d.lut.data(), t.skey = d.skey.data();
  fill_tables(t);
  int64_t where = 0;
  if (const char* wrong = check_tables(t, 0, 0, &where)) {  // what was built is in order
    std::fprintf(stderr, "entry %lld: %s\n", static_cast<long long>(where), wrong);
    std::abort();
  }
  d.shards = {0, n, 0, m, 0, 0, static_cast<int64_t>(d.docs.size()) - 1, 1};
  if (random() % 3 == 0) {
    d.ptr_bytes = 3;
    for (uint32_t p : d.sa)
      for (int i = 0; i < 3; ++i)
        d.bytes.push_back(static_cast<uint8_t>(p * sizeof(Token) >> (8 * i)));
  }
  return d;
}

template <typename T>
void damage(std::vector<T>& values, Random& random) {
  if (values.empty()) return;
  for (int64_t n = below(random, 4); n > 0; --n) {
    T& value = values[static_cast<size_t>(below(random, static_cast<int64_t>(values.size())))];
    switch (random() % 4) {
      case 0: value = static_cast<T>(random()); break;
      case 1: value = static_cast<T>(value ^ T{1} << random() % (8 * sizeof(T))); break;
      case 2: value = static_cast<T>(value + 1); break;
      default: value = static_cast<T>(~T{0}); break;
    }
  }
}

template <typename Token>
Index index_of(const Data<Token>& d) {
  Index index{};
  index.text = d.text.data(), index.num_text = static_cast<int64_t>(d.text.size());
  const bool foreign = d.ptr_bytes > 0;
  index.sa = foreign ? static_cast<const void*>(d.bytes.data()) : d.sa.data();
  index.num_sa = static_cast<int64_t>(foreign ? d.bytes.size() : d.sa.size());
  index.lut = foreign ? nullptr : d.lut.data();
  index.skey = foreign || d.skey.empty() ? nullptr : d.skey.data();
  index.num_skey = static_cast<int64_t>(d.skey.size());
  index.docs = d.docs.data(), index.num_docs = static_cast<int64_t>(d.docs.size());
  index.shards = d.shards.data(), index.num_shards = 1;
  index.vocab_size = d.vocab_size, index.eos_id = d.vocab_size > 1 ? 1 : -1;
  index.token_bytes = sizeof(Token), index.ptr_bytes = d.ptr_bytes;
  return index;
}

// Every kernel of the CPU on rows of queries, some of them with wrong offsets and ranges.
void query(const Index& index, Random& random) {
  constexpr int64_t kRows = 12;
  std::vector<int64_t> qtok(60), qoff = {0};
  for (auto& token : qtok) token = below(random, index.vocab_size + 2) - 1;
  for (int64_t q = 1; q < kRows; ++q) qoff.push_back(qoff.back() + below(random, 6));
  qoff.push_back(60);
  if (random() % 4 == 0) qoff[static_cast<size_t>(below(random, 13))] = below(random, 200) - 50;
  std::vector<int64_t> rng(kRows * 2), cnt(kRows), num(60), den(60), tok(kRows), crow(kRows + 1);
  std::vector<int64_t> list(300), counts(300), where(kRows * 5 * 4), top(kRows * 3),
      topn(kRows * 3);
  std::vector<int32_t> status(kRows), len(kRows), per_token(60), distinct(60), depth(kRows);
  v3::find_cpu(
      {index, qtok.data(), qoff.data(), nullptr, kRows, 60, rng.data(), cnt.data(), status.data()});
  v3::longest_suffix_cpu({index, qtok.data(), qoff.data(), nullptr, kRows, 60, 0, 1, len.data(),
                          rng.data(), cnt.data(), status.data()});
  v3::longest_prefix_cpu(
      {index, qtok.data(), qoff.data(), kRows, 60, per_token.data(), status.data()});
  v3::score_cpu({index, qtok.data(), qoff.data(), kRows, 60, 0, 1, per_token.data(), den.data(),
                 num.data(), distinct.data(), status.data()});
  for (size_t q = 0; q < kRows; ++q) depth[q] = len[q], tok[q] = below(random, index.vocab_size);
  if (random() % 3 == 0) damage(rng, random);
  if (random() % 3 == 0) damage(depth, random);
  bool approx[kRows];
  const NextParams next{index, rng.data(), depth.data(), kRows, below(random, 3), status.data()};
  v3::next_prob_cpu({next, tok.data(), num.data(), den.data()});
  v3::ntd_cpu({next, 300, crow.data(), list.data(), counts.data(), den.data(), approx, nullptr,
               nullptr, nullptr});
  v3::ntd_topk_cpu({next, 3, top.data(), topn.data()});
  v3::locate_cpu({index, rng.data(), kRows, 5, 1, where.data(), status.data()});
}

template <typename Token>
void round(Random& random) {
  Data<Token> d = make<Token>(random);
  const int kind = static_cast<int>(random() % 8);
  if (kind == 0) damage(d.text, random);
  if (kind <= 1) damage(d.sa, random), damage(d.bytes, random);
  if (kind == 2) damage(d.lut, random);
  if (kind == 3) damage(d.skey, random);
  if (kind == 4) damage(d.docs, random);
  if (kind == 5) damage(d.shards, random);
  if (kind == 6) damage(d.sa, random), damage(d.lut, random), damage(d.skey, random);
  query(index_of(d), random);
}
}  // namespace

int main(int argc, char** argv) {
  Random random(argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 1);
  const double seconds = argc > 2 ? std::atof(argv[2]) : 1;
  const auto start = std::chrono::steady_clock::now();
  int64_t rounds = 0;
  while (std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() <
         seconds) {
    round<uint8_t>(random);
    round<uint16_t>(random);
    round<uint32_t>(random);
    rounds += 3;
  }
  std::printf("%lld rounds\n", static_cast<long long>(rounds));
}
