// Filters of chat templates by kind; jinja_filters.cc holds the table.
#pragma once

#include "engine/text/jinja_ops.h"

namespace neurogrid::jinja {

/// Each takes the filtered value first and is named as in jinja2.
absl::StatusOr<Value> FilterBatch(Runtime& runtime, const Arguments& arguments);
absl::StatusOr<Value> FilterDictSort(Runtime& runtime, const Arguments& arguments);
absl::StatusOr<Value> FilterFirst(Runtime& runtime, const Arguments& arguments);
absl::StatusOr<Value> FilterGroupBy(Runtime& runtime, const Arguments& arguments);
absl::StatusOr<Value> FilterItems(Runtime& runtime, const Arguments& arguments);
absl::StatusOr<Value> FilterJoin(Runtime& runtime, const Arguments& arguments);
absl::StatusOr<Value> FilterLast(Runtime& runtime, const Arguments& arguments);
absl::StatusOr<Value> FilterLength(Runtime& runtime, const Arguments& arguments);
absl::StatusOr<Value> FilterList(Runtime& runtime, const Arguments& arguments);
absl::StatusOr<Value> FilterMap(Runtime& runtime, const Arguments& arguments);
absl::StatusOr<Value> FilterMax(Runtime& runtime, const Arguments& arguments);
absl::StatusOr<Value> FilterMin(Runtime& runtime, const Arguments& arguments);
absl::StatusOr<Value> FilterReject(Runtime& runtime, const Arguments& arguments);
absl::StatusOr<Value> FilterRejectAttr(Runtime& runtime, const Arguments& arguments);
absl::StatusOr<Value> FilterReverse(Runtime& runtime, const Arguments& arguments);
absl::StatusOr<Value> FilterSelect(Runtime& runtime, const Arguments& arguments);
absl::StatusOr<Value> FilterSelectAttr(Runtime& runtime, const Arguments& arguments);
absl::StatusOr<Value> FilterSlice(Runtime& runtime, const Arguments& arguments);
absl::StatusOr<Value> FilterSort(Runtime& runtime, const Arguments& arguments);
absl::StatusOr<Value> FilterSum(Runtime& runtime, const Arguments& arguments);
absl::StatusOr<Value> FilterUnique(Runtime& runtime, const Arguments& arguments);

absl::StatusOr<Value> FilterAbs(Runtime& runtime, const Arguments& arguments);
absl::StatusOr<Value> FilterFloat(Runtime& runtime, const Arguments& arguments);
absl::StatusOr<Value> FilterInt(Runtime& runtime, const Arguments& arguments);
absl::StatusOr<Value> FilterRound(Runtime& runtime, const Arguments& arguments);

}  // namespace neurogrid::jinja
