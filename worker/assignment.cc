#include "worker/assignment.h"

#include "absl/strings/str_cat.h"
#include "common/identity.h"

namespace neurogrid {
namespace {

absl::StatusOr<Precision> PrecisionOf(wire::WirePrecision precision) {
  switch (precision) {
    case wire::PRECISION_F32:
      return Precision::kF32;
    case wire::PRECISION_BF16:
      return Precision::kBf16;
    case wire::PRECISION_INT8:
      return Precision::kInt8;
    case wire::PRECISION_INT8_A8:
      return Precision::kInt8A8;
    case wire::PRECISION_AUTO:
      return Precision::kAuto;
    case wire::PRECISION_BLOCKS_A8:
      return Precision::kBlocksA8;
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("assign.precision: unknown value ", static_cast<int>(precision)));
  }
}

absl::Status CheckNeighbour(absl::string_view name, const wire::Neighbour& neighbour) {
  NG_RETURN_IF_ERROR(CheckNodeId(neighbour.node_id()));
  NG_RETURN_IF_ERROR(CheckText(absl::StrCat(name, ".host"), neighbour.host()));
  if (neighbour.port() <= 65535) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("assign.", name, ".port is ", neighbour.port()));
}

}  // namespace

absl::StatusOr<StageRequest> ReadAssignment(const wire::Assign& assign) {
  if (assign.epoch() == 0) return absl::InvalidArgumentError("assign.epoch is 0");
  NG_RETURN_IF_ERROR(CheckText("assign.model_name", assign.model_name()));
  NG_RETURN_IF_ERROR(CheckText("assign.model_digest", assign.model_digest()));
  NG_RETURN_IF_ERROR(CheckText("assign.model_path", assign.model_path(), kWirePathBytesMax));
  NG_RETURN_IF_ERROR(CheckText("assign.plan_digest", assign.plan_digest()));
  NG_RETURN_IF_ERROR(CheckNeighbour("previous", assign.previous()));
  NG_RETURN_IF_ERROR(CheckNeighbour("next", assign.next()));
  if (assign.layer_first() >= assign.layer_last() || assign.layer_last() > 1024) {
    return absl::InvalidArgumentError(absl::StrCat("assign: layers [", assign.layer_first(), ",",
                                                   assign.layer_last(), ") are no range"));
  }
  StageRequest request;
  request.model_name = assign.model_name();
  request.model_digest = assign.model_digest();
  request.model_path = assign.model_path();
  request.options.layers = {.first = static_cast<int>(assign.layer_first()),
                            .last = static_cast<int>(assign.layer_last())};
  NG_ASSIGN_OR_RETURN(request.options.precision, PrecisionOf(assign.precision()));
  NG_ASSIGN_OR_RETURN(request.options.limits, FromMessage(assign.limits()));
  return request;
}

}  // namespace neurogrid
