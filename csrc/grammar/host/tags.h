// grammar/host/tags.h: structural tags, a JSON tree that says how free text, tags and schemas
// follow one another in a model's answer. The formats are those of XGrammar.
#pragma once
#include <functional>
#include <string>
#include <string_view>

#include "schema.h"

namespace lmx::grammar {
// The id of a token that is given by its text; throws std::invalid_argument if there is none.
using TokenOf = std::function<int32_t(const std::string&)>;

// Throws GrammarSyntaxError where the text is no structural tag, with the path of the format, and
// what its grammars and schemas throw. `options`: of schemas.
Grammar structural_tag(std::string_view text, const SchemaOptions& options,
                       const TokenOf& token_of);
}  // namespace lmx::grammar
