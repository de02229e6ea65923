// csrc/ngram/index.h: a suffix-array index as tensors, and what a corrupt one cannot do.
//
// The text of a shard is SEP d0 SEP d1 SEP ... d(D-1) SEP; SEP = all ones. `sa` holds, in order,
// the positions of the suffixes that begin at a token of a document. Two suffixes are compared
// token by token as unsigned numbers, up to the first SEP, then by position. The foreign order is
// that of infini-gram's directories (version 4): pointers are byte offsets of ptr_bytes bytes,
// every position has a suffix, no SEP ends the text, tokens compare by their little-endian bytes,
// and a suffix that ends with the text is the smallest of its prefix's.
//
// All shards lie in one set of tensors, found by the table `shards`. A shard with sign -1 is
// subtracted from every count.
#pragma once
#include "../common/hostdev.h"
#include "../common/status.h"

namespace lmx::ngram {
constexpr int kKeyShift = 6;  // a key every 64 ranks
constexpr int kShardColumns = 8;
constexpr int64_t kMaxShards = 1 << 16;

struct Index {
  const void* text;       // [num_text], tokens of token_bytes
  const void* sa;         // [num_sa], uint32 positions, or bytes if ptr_bytes > 0
  const int64_t* lut;     // [S, vocab_size + 2], or null
  const uint64_t* skey;   // [num_skey]
  const int64_t* docs;    // [num_docs], or null where the op does not need them
  const int64_t* shards;  // [S, 8]: text_off, N, sa_off, M, skey_off, doc_off, D, sign
  int64_t num_text, num_sa, num_skey, num_docs, num_shards;
  int64_t vocab_size;
  int64_t eos_id;   // the token that stands for "the document ends here"; -1: none
  int token_bytes;  // 1, 2, 4
  int ptr_bytes;    // 0: native; 1 to 8: foreign
};

// ---- orders -----------------------------------------------------------------------------------
template <typename T>
struct NativeOrder {
  using Token = T;
  static constexpr bool kForeign = false;
  LMX_HD static T key(T token) { return token; }
};
template <typename T>
struct ForeignOrder {
  using Token = T;
  static constexpr bool kForeign = true;
  LMX_HD static T key(T token) {
    if constexpr (sizeof(T) == 1) return token;
    if constexpr (sizeof(T) == 2) return static_cast<T>(token << 8 | token >> 8);
    const auto t = static_cast<uint32_t>(token);
    return static_cast<T>(t << 24 | (t & 0xff00) << 8 | (t >> 8 & 0xff00) | t >> 24);
  }
};

// Calls f(order) with the order that the index is in: 6 instantiations.
template <typename F>
void visit_order(const Index& index, const F& f) {
  const bool foreign = index.ptr_bytes > 0;
  switch (index.token_bytes) {
    case 1: return foreign ? f(ForeignOrder<uint8_t>{}) : f(NativeOrder<uint8_t>{});
    case 2: return foreign ? f(ForeignOrder<uint16_t>{}) : f(NativeOrder<uint16_t>{});
    default: return foreign ? f(ForeignOrder<uint32_t>{}) : f(NativeOrder<uint32_t>{});
  }
}

// ---- one shard --------------------------------------------------------------------------------
template <typename Order>
struct Shard {
  using Token = typename Order::Token;
  static constexpr Token kSep = static_cast<Token>(~Token{0});
  static constexpr int kKeyTokens = 8 / static_cast<int>(sizeof(Token));

  const Token* text;
  const void* sa;
  const int64_t* lut;    // [vocab_size + 2] or null
  const uint64_t* skey;  // [ceil(M / 64)] or null
  const int64_t* docs;   // [D + 1] or null
  int64_t num_tokens, num_suffixes, num_docs;
  int64_t sign;
  int ptr_bytes;

  // The position of the suffix of this rank, in [0, num_suffixes); -1 if the file is corrupt.
  LMX_HD int64_t position(int64_t rank) const {
    if constexpr (!Order::kForeign) {
      const auto p = static_cast<int64_t>(static_cast<const uint32_t*>(sa)[rank]);
      return p < num_tokens ? p : -1;
    } else {
      const auto* bytes = static_cast<const uint8_t*>(sa) + rank * ptr_bytes;
      uint64_t offset = 0;
      for (int i = 0; i < ptr_bytes; ++i) offset |= uint64_t{bytes[i]} << (8 * i);
      const bool ok =
          offset % sizeof(Token) == 0 && offset / sizeof(Token) < static_cast<uint64_t>(num_tokens);
      return ok ? static_cast<int64_t>(offset / sizeof(Token)) : -1;
    }
  }
  LMX_HD const void* pointer_address(int64_t rank) const {
    return static_cast<const uint8_t*>(sa) + rank * (Order::kForeign ? ptr_bytes : 4);
  }
};

LMX_HD bool lies_in(int64_t offset, int64_t count, int64_t size) {
  return offset >= 0 && count >= 0 && offset <= size && count <= size - offset;
}

// Shard s; false, and a shard without suffixes, where the table leaves the tensors.
template <typename Order>
LMX_HD bool shard_at(const Index& index, int64_t s, Shard<Order>& shard) {
  using Token = typename Order::Token;
  const int64_t* row = index.shards + s * kShardColumns;
  const int64_t text_off = row[0], n = row[1], sa_off = row[2], m = row[3], skey_off = row[4];
  const int64_t doc_off = row[5], num_docs = row[6], sign = row[7];
  const int64_t num_keys = (m >> kKeyShift) + ((m & ((1 << kKeyShift) - 1)) != 0);
  shard.num_tokens = shard.num_suffixes = shard.num_docs = 0;
  shard.text = static_cast<const Token*>(index.text);
  shard.sa = index.sa, shard.sign = 1, shard.ptr_bytes = index.ptr_bytes;
  shard.lut = nullptr, shard.skey = nullptr, shard.docs = nullptr;
  const int64_t width = Order::kForeign ? index.ptr_bytes : 1;
  const bool ok = lies_in(text_off, n, index.num_text) && m >= 0 && m <= n &&
                  lies_in(sa_off, m * width, index.num_sa) && (sign == 1 || sign == -1) &&
                  (Order::kForeign || lies_in(skey_off, num_keys, index.num_skey)) &&
                  (!index.docs || (num_docs >= 0 && num_docs <= n &&
                                   lies_in(doc_off, num_docs + 1, index.num_docs)));
  if (!ok) return false;
  shard.text += text_off;
  shard.sa = static_cast<const uint8_t*>(index.sa) + sa_off * (Order::kForeign ? 1 : 4);
  if constexpr (!Order::kForeign) {
    shard.lut = index.lut ? index.lut + s * (index.vocab_size + 2) : nullptr;
    shard.skey = index.skey ? index.skey + skey_off : nullptr;
  }
  shard.docs = index.docs ? index.docs + doc_off : nullptr;
  shard.num_tokens = n, shard.num_suffixes = m, shard.num_docs = num_docs, shard.sign = sign;
  return true;
}

// ---- ragged rows ------------------------------------------------------------------------------
struct Span {
  int64_t begin, size;
};
// Row i of ragged tokens; size -1 where the offsets leave [0, total] or decrease.
LMX_HD Span span_at(const int64_t* offsets, int64_t i, int64_t total) {
  const int64_t begin = offsets[i], end = offsets[i + 1];
  return begin >= 0 && begin <= end && end <= total ? Span{begin, end - begin} : Span{0, -1};
}

// The text that token i is of.
LMX_HD int64_t text_at(const int64_t* offsets, int64_t num_texts, int64_t i) {
  int64_t lo = 0, hi = num_texts;  // the last text that begins at or before i
  while (hi - lo > 1) {
    const int64_t mid = (lo + hi) >> 1;
    if (offsets[mid] <= i)
      lo = mid;
    else
      hi = mid;
  }
  return lo;
}

// A token that a document may hold. Others occur nowhere.
LMX_HD bool is_token(int64_t id, int64_t vocab_size) { return id >= 0 && id < vocab_size; }
LMX_HD int64_t known_prefix(const int64_t* ids, int64_t size, int64_t vocab_size) {
  int64_t n = 0;
  while (n < size && is_token(ids[n], vocab_size)) ++n;
  return n;
}
LMX_HD int64_t known_suffix(const int64_t* ids, int64_t size, int64_t vocab_size) {
  int64_t n = 0;
  while (n < size && is_token(ids[size - 1 - n], vocab_size)) ++n;
  return n;
}
}  // namespace lmx::ngram
