#include "engine/short_convolution_block.h"

namespace neurogrid {

absl::StatusOr<ShortConvolutionBlock> ShortConvolutionBlock::Load(WeightLoader& loader,
                                                                  const ModelConfig& config,
                                                                  const TensorNames& names,
                                                                  int layer,
                                                                  const StateLayerView& state) {
  const int64_t hidden = config.hidden_size;
  const std::string convolution = LayerPart(layer, names.conv_taps);
  ShortConvolutionBlock block;
  NG_ASSIGN_OR_RETURN(block.input_,
                      loader.Linear({{LayerPart(layer, names.conv_in), 3 * hidden}}, hidden));
  NG_ASSIGN_OR_RETURN(block.taps_, loader.Taps(convolution, hidden, config.conv_taps));
  NG_ASSIGN_OR_RETURN(block.bias_, loader.BiasIfPresent(convolution, hidden));
  NG_ASSIGN_OR_RETURN(block.output_,
                      loader.Linear({{LayerPart(layer, names.conv_out), hidden}}, hidden));
  block.state_ = state;
  return block;
}

ConstTensor ShortConvolutionBlock::Forward(Ops& ops, const Batch& batch,
                                           const Activations& a) const {
  ops.MatMul(a.bcu, a.normed, *input_);
  ops.ShortConvolution(a.convolved, a.bcu, taps_.view, bias_.view, state_, batch);
  return a.convolved;
}

}  // namespace neurogrid
