// Early return on error: everything that reads a file, a peer or a user returns absl::Status.
#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define NG_RETURN_IF_ERROR(expression)                                            \
  do {                                                                            \
    if (absl::Status ng_status = (expression); !ng_status.ok()) return ng_status; \
  } while (false)

#define NG_CONCAT_INNER(a, b) a##b
#define NG_CONCAT(a, b) NG_CONCAT_INNER(a, b)
#define NG_ASSIGN_OR_RETURN_INNER(result, declaration, expression) \
  auto result = (expression);                                      \
  if (!result.ok()) return std::move(result).status();             \
  declaration = *std::move(result)

/// NG_ASSIGN_OR_RETURN(auto file, MappedFile::Open(path)); returns the status when there is no
/// value.
#define NG_ASSIGN_OR_RETURN(declaration, expression) \
  NG_ASSIGN_OR_RETURN_INNER(NG_CONCAT(ng_result_, __LINE__), declaration, expression)
