// csrc/tree/walk.h: what the verifiers share. A verifier walks down from the root: at a node it
// picks one of the children, or ends with a token that none of them has.
//   path[b]          : 0, then the accepted nodes, then -1
//   accept_length[b] = a, the accepted nodes, the root not counted
//   out_tokens[b]    : the tokens of the accepted nodes, the last token, then -1
// so out_tokens[b, j] == tokens[path[b, j + 1]] for j < a. At depth max_depth no child is tried. A
// sequence without rows, or with a bad tree, has accept_length 0 and -1 everywhere. Where the walk
// comes to a node with no legal token after it, or with bad numbers, it ends with a bit in status:
// what was accepted stays, and out_tokens[b, a] is -1.
// Children follow their parent (a child's id is above it); siblings may be linked in any order.
#pragma once
#include "trees.h"

namespace lmx::tree {
struct WalkParams {
  Trees trees;
  const int64_t* tokens;        // [num_rows]
  const int32_t* first_child;   // [num_rows]
  const int32_t* next_sibling;  // [num_rows]
  int64_t max_depth;
  int32_t* path;           // [num_seqs, max_depth + 1]
  int32_t* accept_length;  // [num_seqs]
  int64_t* out_tokens;     // [num_seqs, max_depth + 1]
};

// The tree of one sequence; on the device its links lie in shared memory.
struct TreeView {
  const int64_t* tokens;
  const int32_t* first_child;
  const int32_t* next_sibling;
  int32_t size;
};

// Siblings one after the other. No node has two parents, so a walk that meets more than size - 1
// children goes round in circles.
struct Siblings {
  int32_t parent;
  int32_t child;  // -1: no more
  int32_t* left;  // children that the walk may still meet
  int32_t bits;

  LMX_HD Siblings(const TreeView& t, int32_t node, int32_t* budget)
      : parent(node), child(-1), left(budget), bits(kStatusOk) {
    to(t, t.first_child[node]);
  }
  LMX_HD void next(const TreeView& t) { to(t, t.next_sibling[child]); }
  LMX_HD void to(const TreeView& t, int32_t id) {
    child = id;
    if (id == -1) return;
    if (id > parent && id < t.size && --*left >= 0) return;
    bits = kStatusBadTree;
    child = -1;
  }
};

// The path and tokens of one sequence while it is walked.
struct Walk {
  int32_t* path;
  int64_t* out_tokens;
  int32_t node;      // where the walk is
  int32_t accepted;  // a
  int32_t left;

  LMX_HD Walk(const WalkParams& p, int64_t seq, int32_t size)
      : path(p.path + seq * (p.max_depth + 1)),
        out_tokens(p.out_tokens + seq * (p.max_depth + 1)),
        node(0),
        accepted(0),
        left(size - 1) {}
  LMX_HD void begin() { path[0] = 0; }
  LMX_HD void accept(int32_t child, int64_t token) {
    out_tokens[accepted++] = token;
    path[accepted] = node = child;
  }
};

LMX_HD void clear_walk(const WalkParams& p, int64_t seq) {
  for (int64_t i = seq * (p.max_depth + 1); i < (seq + 1) * (p.max_depth + 1); ++i)
    p.path[i] = -1, p.out_tokens[i] = -1;
  p.accept_length[seq] = 0;
}
}  // namespace lmx::tree
