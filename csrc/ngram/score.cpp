// csrc/ngram/score.cpp: CPU side of score.h.
#include "score.h"

#include <algorithm>

#include "cpu.h"

namespace lmx::ngram::LMX_ISA {
namespace {
// A text is cut into pieces, so that one text fills all searches in flight. What a piece begins
// with is searched afresh.
constexpr int64_t kPiece = 128;

struct Piece {
  int64_t text, begin, end;  // tokens [begin, end) of all, of this text
  int64_t first;             // where the text begins
};

template <typename Order>
class Scorer {
 public:
  using Token = typename Order::Token;
  int32_t bits = 0;

  // `space` holds four ranges a shard.
  void start(const ScoreParams& params, const std::vector<Shard<Order>>& shards,
             const Token* tokens, const Piece& piece, Range* space) {
    p_ = &params, shards_ = shards.data(), num_ = static_cast<int64_t>(shards.size());
    tokens_ = tokens, piece_ = piece, t_ = piece.begin, bits = 0;
    ranges_ = space, next_ = space + num_, spare_ = space + 2 * num_;
    search(piece.end, -1);
  }

  bool step() {
    if (t_ >= piece_.end) return false;
    if (extending_) return step_extend();
    if (search_.step()) return true;
    if (search_.corrupt) bits |= kStatusCorrupt;
    len_ = search_.found, count_ = search_.count;
    std::copy_n(search_.ranges, num_, ranges_);
    extend();
    return t_ < piece_.end;
  }

 private:
  // The longest suffix of the tokens before t, at most `most` of them. prev_len as in suffix.h.
  void search(int64_t most, int64_t prev_len) {
    extending_ = false;
    most = std::min(most, bounded(t_ - piece_.first, p_->max_len));
    const Token* end = tokens_ + t_;
    search_.start(shards_, num_, end, known_suffix(end - most, most), p_->min_count, prev_len,
                  spare_, spare_ + num_);
  }

  // How often token t follows: its range within the suffix's.
  void extend() {
    extending_ = true, s_ = 0, literal_ = 0;
    is_known_ = tokens_[t_] != Shard<Order>::kSep;
    if (num_ == 0 || !is_known_) return finish();
    start_shard();
  }
  void start_shard() {
    const Token* string = tokens_ + t_ - len_;
    if (len_ == 0)
      finder_.start(shards_[s_], string, 1);
    else
      finder_.start(shards_[s_], string, len_ + 1, ranges_[s_], len_);
  }
  bool step_extend() {
    if (finder_.step()) return true;
    if (finder_.corrupt) bits |= kStatusCorrupt;
    next_[s_] = finder_.range();
    literal_ += shards_[s_].sign * (next_[s_].hi - next_[s_].lo);
    if (++s_ < num_)
      start_shard();
    else
      finish();
    return t_ < piece_.end;
  }

  // Writes the results of t and goes to t + 1.
  void finish() {
    int64_t num = literal_;
    const bool is_end = p_->index.eos_id >= 0 && p_->qtok[t_] == p_->index.eos_id;
    for (int64_t s = 0; is_end && s < num_; ++s) {
      Next<Order> next{shards_[s], len_};
      num += shards_[s].sign * next.count_end(ranges_[s]);
      if (next.corrupt) bits |= kStatusCorrupt;
    }
    p_->suffix_len[t_] = static_cast<int32_t>(len_);
    p_->den[t_] = count_, p_->num[t_] = num;
    p_->distinct[t_] = distinct(num);
    if (++t_ >= piece_.end) return;
    const bool occurs = is_known_ && literal_ >= p_->min_count && literal_ > 0;
    if (occurs && len_ == p_->max_len && len_ > 0) return search(len_, len_ - 1);
    if (!occurs) return search(len_, -1);
    std::swap(ranges_, next_);
    ++len_, count_ = literal_;
    extend();
  }

  int32_t distinct(int64_t num) {
    if (count_ <= 0) return 0;
    if (num == count_) return 1;
    if (num > 0) return 2;
    Distinct<Order> count{shards_, num_, len_, p_->index.eos_id};
    const int32_t found = count([&](int64_t s) { return ranges_[s]; });
    if (count.corrupt) bits |= kStatusCorrupt;
    return found;
  }

  const ScoreParams* p_;
  const Shard<Order>* shards_;
  const Token* tokens_;
  Piece piece_;
  SuffixSearch<Order, Token> search_;
  Finder<Order, Token> finder_;
  int64_t num_, t_, s_, len_, count_, literal_;
  Range *ranges_, *next_, *spare_;
  bool extending_, is_known_;
};

std::vector<Piece> pieces_of(const ScoreParams& p, int32_t bits) {
  std::vector<Piece> pieces;
  for (int64_t text = 0; text < p.num_texts; ++text) {
    const Span span = span_at(p.qoff, text, p.num_tokens);
    report("ngram_score", p.status, text, bits | (span.size < 0 ? kStatusBadOffsets : 0));
    for (int64_t i = 0; i < span.size; i += kPiece)
      pieces.push_back(
          {text, span.begin + i, span.begin + std::min(i + kPiece, span.size), span.begin});
  }
  return pieces;
}

template <typename Order>
void score_texts(const ScoreParams& p) {
  int32_t corrupt = 0;
  const auto shards = shards_of<Order>(p.index, corrupt);
  const auto tokens = stored_tokens<Order>(p.qtok, p.num_tokens, p.index.vocab_size);
  const auto pieces = pieces_of(p, corrupt);
  std::fill_n(p.suffix_len, p.num_tokens, 0);  // also where a token is of no text
  std::fill_n(p.distinct, p.num_tokens, 0);
  std::fill_n(p.den, p.num_tokens, 0);
  std::fill_n(p.num, p.num_tokens, 0);
  parallel_for(0, static_cast<int64_t>(pieces.size()), 4, [&](int64_t begin, int64_t end) {
    std::vector<Range> space(4 * shards.size() * kInFlight);
    interleave<Scorer<Order>>(
        begin, end,
        [&](Scorer<Order>& scorer, int64_t i, int slot) {
          scorer.start(p, shards, tokens.data(), pieces[static_cast<size_t>(i)],
                       space.data() + 4 * shards.size() * static_cast<size_t>(slot));
        },
        [&](const Scorer<Order>& scorer, int64_t i, int) {
          if (scorer.bits)
            report("ngram_score", p.status, pieces[static_cast<size_t>(i)].text, scorer.bits);
        });
  });
}
}  // namespace

void score_cpu(const ScoreParams& p) {
  visit_order(p.index, [&](auto order) { score_texts<decltype(order)>(p); });
}
}  // namespace lmx::ngram::LMX_ISA
