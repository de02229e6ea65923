// grammar/host/schema_document.h: a schema's text and those of its registry: drafts, identifiers,
// references.
#pragma once
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "json.h"
#include "schema.h"

namespace lmx::grammar {
// Why a keyword cannot be honoured; whoever reads the keyword adds where it stands.
struct Refusal {
  std::string reason;
};

class SchemaDocument {
 public:
  SchemaDocument(std::string_view text, const SchemaOptions& options);

  const Json& root() const { return *documents_[0]; }
  int draft() const { return draft_; }  // 4, 6, 7, 2019 or 2020
  // What a reference within `schema` names. Throws Refusal.
  const Json& resolve(const Json& schema, const std::string& reference) const;
  const Json& resolve_dynamic(const Json& schema, const std::string& reference) const;
  const Json& resolve_recursive(const Json& schema, const std::string& reference) const;
  // "#/properties/a": where a part of the document stands.
  std::string pointer_to(const Json& part) const;

 private:
  void index(const Json& value, std::string base, bool is_map);
  std::string base_of(const Json& schema) const;
  std::vector<std::unique_ptr<Json>> documents_;
  std::vector<std::string> bases_;  // by document
  int draft_ = 2020;
  std::unordered_map<std::string, const Json*> resources_, anchors_;  // by URI; by URI#name
  std::unordered_map<std::string, int> dynamic_;       // how many dynamic anchors have a name
  std::unordered_map<const Json*, std::string> base_;  // of schemas with references
  int num_recursive_ = 0;
};
}  // namespace lmx::grammar
