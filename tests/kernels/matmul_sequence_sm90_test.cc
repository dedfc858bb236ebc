// Products of one row in one kernel have the bits of products one by one, which are tested against
// f64 in matmul_test.cc, matmul_norm_test.cc and matmul_convolution_test.cc.
#include "kernels/matmul_sequence_sm90.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <memory>

#include "tests/kernels/packed.h"
#include "tests/support/sanitized.h"

namespace neurogrid::kernels {
namespace {

constexpr int kTaps = 3;
constexpr int64_t kScratchValues = 8192;

size_t Count(int values) { return static_cast<size_t>(values); }

/// Two layers with a convolution, or none, in front of a gated product, and one product behind.
struct Shape {
  int hidden;
  int ffn;
  int last;  // outputs
  bool convolves;
  bool with_bias;
  bool last_is_f32 = false;
};

class Layers {
 public:
  explicit Layers(const Shape& shape) : shape_(shape) {
    const int inner = shape.convolves ? 3 * shape.hidden : shape.hidden;
    for (int layer = 0; layer < 2; ++layer) {
      AddWeights(inner, shape.hidden, false);
      AddWeights(shape.hidden, shape.hidden, false);
      AddWeights(shape.ffn, shape.hidden, true);
      AddWeights(shape.hidden, shape.ffn, false);
      states_.push_back(std::make_unique<Device<Bf16>>(RandomOf<Bf16>(
          40 + static_cast<uint64_t>(layer), Count(2 * (kTaps - 1) * shape.hidden))));
    }
    AddWeights(shape.last, shape.hidden, false);
    Reset();
  }

  /// All that the products wrote.
  struct Results {
    std::vector<Bf16> hidden, normed, inner, convolved, gated, first_state, second_state;
    std::vector<uint8_t> last;
    bool operator==(const Results& o) const {
      return SameBits(hidden, o.hidden) && SameBits(normed, o.normed) && SameBits(inner, o.inner) &&
             SameBits(convolved, o.convolved) && SameBits(gated, o.gated) &&
             SameBits(first_state, o.first_state) && SameBits(second_state, o.second_state) &&
             SameBits(last, o.last);
    }
  };

  /// From product `first` to `end`, one by one.
  Results OneByOne(int first, int end) {
    Reset();
    for (int i = first; i < end; ++i) {
      const SequenceProduct p = ProductAt(i);
      REQUIRE(MatMul(p.operands, p.weights, nullptr) == cudaSuccess);
    }
    return Read();
  }
  Results InOneKernel(int first, int end) {
    Reset();
    Queue(first, end, nullptr);
    return Read();
  }
  void Queue(int first, int end, cudaStream_t stream) {
    ProductSequence sequence;
    for (int i = first; i < end; ++i) {
      const SequenceProduct p = ProductAt(i);
      REQUIRE(SequenceTakes(sequence, p, scratch()));
      sequence.at[sequence.count++] = p;
    }
    REQUIRE(MatMulSequence(sequence, scratch(), stream) == cudaSuccess);
  }

  void Reset() {
    hidden_.Write(RandomOf<Bf16>(1, Count(shape_.hidden)));
    normed_.Write(RandomOf<Bf16>(2, Count(shape_.hidden)));
    inner_.Write(RandomOf<Bf16>(3, Count(3 * shape_.hidden)));
    convolved_.Write(RandomOf<Bf16>(4, Count(shape_.hidden)));
    gated_.Write(RandomOf<Bf16>(5, Count(shape_.ffn)));
    last_.Write(std::vector<uint8_t>(Count(4 * shape_.last), 1));
    for (size_t i = 0; i < states_.size(); ++i) {
      states_[i]->Write(RandomOf<Bf16>(40 + i, Count(2 * (kTaps - 1) * shape_.hidden)));
    }
  }
  Results Read() const {
    return {hidden_.Read(), normed_.Read(),     inner_.Read(),      convolved_.Read(),
            gated_.Read(),  states_[0]->Read(), states_[1]->Read(), last_.Read()};
  }

  SequenceProduct ProductAt(int i) const {
    const Weights& w = weights_[Count(i)]->view();
    const MatMulNorm norm{{norm_.data(), 1e-5f, false}, nullptr, normed_.data()};
    const int kind = i % 4;
    MatMulOperands o{hidden_.data(), false, hidden_.data(), 1, Epilogue::kStore};
    if (i == 8) {
      o.y = last_.data();
      o.y_is_f32 = shape_.last_is_f32;
      o.norm = norm;
    } else if (kind == 0) {
      o.y = inner_.data();
      o.norm = norm;
    } else if (kind == 1) {
      o.epilogue = Epilogue::kAdd;
      o.x = inner_.data();
      if (shape_.convolves) {
        o.x = nullptr;
        o.convolution = {
            {convolved_.data(), inner_.data(), taps_.data(), nullptr, states_[Count(i / 4)]->data(),
             int64_t{kTaps - 1} * shape_.hidden, shape_.hidden, kTaps},
            chunk_.data() + i / 4,
            arrivals_.data()};
      }
    } else if (kind == 2) {
      o.y = gated_.data();
      o.epilogue = Epilogue::kSiluGated;
      o.norm = norm;
    } else {
      o.x = gated_.data();
      o.epilogue = Epilogue::kAdd;
    }
    return {o, w};
  }
  SequenceScratch scratch() const { return {scratch_.data(), scratch_.count()}; }

 private:
  void AddWeights(int outputs, int inputs, bool gated) {
    const int parts = gated ? 2 : 1;
    const uint64_t seed = 10 + weights_.size();
    weights_.push_back(std::make_unique<PackedWeights>(
        WeightFormat::kBf16, outputs, inputs,
        RandomFloats(seed, Count(parts * outputs) * Count(inputs), 0.03f),
        shape_.with_bias ? RandomFloats(seed + 100, Count(parts * outputs)) : std::vector<float>(),
        gated));
  }

  Shape shape_;
  std::vector<std::unique_ptr<PackedWeights>> weights_;
  std::vector<std::unique_ptr<Device<Bf16>>> states_;
  Device<Bf16> hidden_{Count(shape_.hidden)};
  Device<Bf16> normed_{Count(shape_.hidden)};
  Device<Bf16> inner_{Count(3 * shape_.hidden)};
  Device<Bf16> convolved_{Count(shape_.hidden)};
  Device<Bf16> gated_{Count(shape_.ffn)};
  Device<uint8_t> last_{Count(4 * shape_.last)};
  Device<float> norm_{RandomFloats(6, Count(shape_.hidden))};
  Device<float> taps_{RandomFloats(7, Count(kTaps* shape_.hidden))};
  // In place, and a first token.
  Device<ConvolutionChunk> chunk_{
      std::vector<ConvolutionChunk>{{0, 0, 1, 1, 1, 1}, {0, 0, 1, 1, -1, 0}}};
  Device<uint32_t> arrivals_{std::vector<uint32_t>(kArrivals)};
  Device<uint8_t> scratch_{std::vector<uint8_t>(
      std::max<size_t>(1, static_cast<size_t>(SequenceScratchBytes(kScratchValues))))};
};

bool DeviceHasIt() { return SequenceScratchBytes(kScratchValues) > 0; }

}  // namespace

TEST_CASE("products of one row in one kernel have the bits of products one by one",
          "[kernels][sm90][sequence]") {
  if (!DeviceHasIt()) SKIP("this kernel needs a device of sm_90");
  // Chains and slices of every kind, jobs that end within a block's warps, few tiles for many
  // blocks, more stages than the ring.
  const Shape shape = GENERATE(values<Shape>({
      {1536, 2560, 4112, true, false, true},
      {512, 512, 16, true, true},
      {1024, 3072, 4160, true, true},
      {2048, 1024, 48, false, true, true},
      {2048, 2560, 4112, false, false},
  }));
  if (Sanitized() && shape.hidden > 1024) return;
  CAPTURE(shape.hidden, shape.ffn, shape.convolves);
  Layers layers(shape);
  for (const auto& [first, end] : {std::pair{0, 9}, {1, 9}, {0, 2}, {2, 4}, {3, 5}, {4, 9}}) {
    CAPTURE(first, end);
    CHECK(layers.InOneKernel(first, end) == layers.OneByOne(first, end));
  }
}

TEST_CASE("sequences that follow one another closely keep their rows apart",
          "[kernels][sm90][sequence]") {
  if (!DeviceHasIt()) SKIP("this kernel needs a device of sm_90");
  Layers expected({1024, 2048, 4160, true, false, true});
  Layers layers({1024, 2048, 4160, true, false, true});
  constexpr int kTimes = 50;
  for (int i = 0; i < kTimes; ++i) {
    for (int product = 0; product < 9; ++product) {
      const SequenceProduct p = expected.ProductAt(product);
      REQUIRE(MatMul(p.operands, p.weights, nullptr) == cudaSuccess);
    }
    layers.Queue(0, 2, nullptr);
    layers.Queue(2, 5, nullptr);
    layers.Queue(5, 9, nullptr);
  }
  CHECK(layers.Read() == expected.Read());
}

TEST_CASE("a product that does not follow the ones before it is not taken",
          "[kernels][sm90][sequence]") {
  if (!DeviceHasIt()) SKIP("this kernel needs a device of sm_90");
  Layers layers({512, 512, 16, true, false});
  ProductSequence sequence;
  sequence.at[sequence.count++] = layers.ProductAt(0);
  CHECK(SequenceTakes(sequence, layers.ProductAt(1), layers.scratch()));
  CHECK_FALSE(SequenceTakes(sequence, layers.ProductAt(2), layers.scratch()));  // reads other rows
  SequenceProduct int8 = layers.ProductAt(1);
  int8.weights.format = WeightFormat::kInt8;
  CHECK_FALSE(SequenceTakes(sequence, int8, layers.scratch()));
  SequenceProduct two = layers.ProductAt(1);
  two.operands.rows = 2;
  CHECK_FALSE(SequenceTakes(sequence, two, layers.scratch()));
  CHECK_FALSE(SequenceTakes(sequence, layers.ProductAt(1), {layers.scratch().data, 512}));
  sequence.at[sequence.count++] = layers.ProductAt(1);
  sequence.at[sequence.count++] = layers.ProductAt(2);
  SequenceProduct adds = layers.ProductAt(3);
  CHECK(SequenceTakes(sequence, adds, layers.scratch()));
  adds.operands.y = sequence.at[0].operands.y;  // made two products ago
  CHECK_FALSE(SequenceTakes(sequence, adds, layers.scratch()));
  sequence.count = kSequenceProductsMax;
  sequence.at[kSequenceProductsMax - 1] = layers.ProductAt(0);
  CHECK_FALSE(SequenceTakes(sequence, layers.ProductAt(1), layers.scratch()));
}

}  // namespace neurogrid::kernels
