// common/status.h: the bits of every op's `status` tensor, int32 [num_seqs]. An op only adds bits.
// A sequence with a bit set counts as empty for the rest of the op; the others are not touched.
#pragma once
#include "hostdev.h"

namespace lmx {
enum Status : int32_t {
  kStatusOk = 0,
  kStatusBadTree = 1 << 0,     // a parent at or after its node, below -1, or a second root
  kStatusTooMany = 1 << 1,     // more nodes, tokens or slots than the capacity the caller gave
  kStatusBadToken = 1 << 2,    // a token id outside [0, vocab_size)
  kStatusBadOffsets = 1 << 3,  // offsets that decrease or leave their tensor
  kStatusBadPage = 1 << 4,     // a needed table entry is 0 (the null page) or outside the pool
  kStatusBadMask = 1 << 5,     // a mask id outside [-1, num_masks)
  kStatusBadValue = 1 << 6,    // a sampling parameter outside its range
  kStatusBadGroup = 1 << 7,    // a weight group outside [-1, num_groups), or one without weights
  kStatusCorrupt = 1 << 8,     // an index whose pointers or tables lead outside it
};
}  // namespace lmx
