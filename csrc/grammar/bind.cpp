// csrc/grammar/bind.cpp: the torch side of the room. Compiled once per backend, see common/backend.h.
#include "../common/backend.h"

LMX_REGISTER(m) { static_cast<void>(m); }
