// Speed of the CPU kernels beside this machine's own: kernel_bench [threads [bf16 | int8 |
// int8-a8 | f32 | q4_0 | q4_0-a8 | ... | attention | all [avx2 | avx512 | ...]]]. Weights are read
// from a ring larger than any cache; every figure is the median of rounds alternated with a raw
// read.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "common/rng.h"
#include "engine/cpu/attention.h"
#include "engine/cpu/machine_speed.h"
#include "engine/cpu/matmul.h"

namespace neurogrid {
namespace {

constexpr int64_t kRingBytes = int64_t{400} << 20;

/// Matrices of a Llama of 1 B parameters (qkv, out, gate and up, down, head), then of SmolLM2-135M.
constexpr std::pair<int64_t, int64_t> kShapes[] = {{3072, 2048}, {2048, 2048},  {16384, 2048},
                                                   {2048, 8192}, {65536, 2048}, {960, 576},
                                                   {3072, 576},  {576, 1536}};

/// What weights are held as: a format, or blocks of a type.
struct Held {
  std::string name;
  PackedMatrix::Format format;
  DType blocks = DType::kF32;
  BlockInputs block_inputs = BlockInputs::k16Bits;
};
constexpr auto kGroups = PackedMatrix::Format::kGroups;
constexpr auto k8Bits = BlockInputs::k8Bits;
const Held kHeld[] = {{"bf16", PackedMatrix::Format::kBf16},
                      {"int8", PackedMatrix::Format::kInt8},
                      {"int8-a8", PackedMatrix::Format::kInt8A8},
                      {"f32", PackedMatrix::Format::kF32},
                      {"q4_0", kGroups, DType::kQ4_0},
                      {"q4_1", kGroups, DType::kQ4_1},
                      {"q8_0", kGroups, DType::kQ8_0},
                      {"q4_k", kGroups, DType::kQ4_K},
                      {"q5_k", kGroups, DType::kQ5_K},
                      {"q6_k", kGroups, DType::kQ6_K},
                      {"q4_0-a8", kGroups, DType::kQ4_0, k8Bits},
                      {"q8_0-a8", kGroups, DType::kQ8_0, k8Bits},
                      {"q4_k-a8", kGroups, DType::kQ4_K, k8Bits},
                      {"q5_k-a8", kGroups, DType::kQ5_K, k8Bits},
                      {"q6_k-a8", kGroups, DType::kQ6_K, k8Bits}};

double Seconds(const std::function<void()>& run) {
  const auto start = std::chrono::steady_clock::now();
  run();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

absl::Status RandomRows(int64_t inputs, int64_t first, int64_t count, float* out) {
  for (int64_t i = 0; i < count * inputs; ++i) {
    out[i] =
        static_cast<float>(SplitMix64(static_cast<uint64_t>(first * inputs + i)) >> 40) * 0x1p-24f -
        0.5f;
  }
  return absl::OkStatus();
}

/// Blocks of random bits, whose f16 scales are finite and small.
PackedMatrix RandomBlocks(const CpuContext& cpu, const Held& held, int64_t outputs,
                          int64_t inputs) {
  std::vector<uint8_t> bytes(static_cast<size_t>(BytesOf(held.blocks, outputs * inputs)));
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(SplitMix64(i)) & 0x9f;
  const WeightStore::Entry entry{
      .tensor = ConstTensor(bytes.data(), held.blocks, Shape({outputs, inputs})), .file = "random"};
  return PackedMatrix::PackStored(*cpu.pool, inputs, {entry}, held.block_inputs).value();
}

std::vector<PackedMatrix> Ring(const CpuContext& cpu, const Held& held, int64_t outputs,
                               int64_t inputs) {
  std::vector<PackedMatrix> ring;
  int64_t bytes = 0;
  const auto rows = [inputs](int64_t first, int64_t count, float* out) {
    return RandomRows(inputs, first, count, out);
  };
  while (bytes < kRingBytes) {
    ring.push_back(held.format == PackedMatrix::Format::kGroups
                       ? RandomBlocks(cpu, held, outputs, inputs)
                       : PackedMatrix::Pack(*cpu.pool, held.format, outputs, inputs, rows).value());
    bytes += ring.back().bytes();
  }
  return ring;
}

void BenchMatMul(const CpuContext& cpu, const Held& held, int64_t outputs, int64_t inputs) {
  const bool is_f32 = held.format == PackedMatrix::Format::kF32;
  if (inputs % InfoOf(held.blocks).block_elements != 0) return;
  const std::vector<PackedMatrix> ring = Ring(cpu, held, outputs, inputs);
  constexpr int64_t kRowsMax = 512;
  const MatMulScratch scratch = MatMulScratch::Allocate(kRowsMax, inputs).value();
  std::vector<float> x(static_cast<size_t>(kRowsMax * inputs), 0.5f);
  std::vector<float> y(static_cast<size_t>(kRowsMax * outputs));
  for (const int64_t rows : {1, 2, 4, 8, 32, 512}) {
    if (rows == 512 && outputs > 20000) continue;
    // Bytes of x are arbitrary but normal numbers in either dtype.
    const ConstTensor xs(x.data(), is_f32 ? DType::kF32 : DType::kBF16, {rows, inputs});
    const Tensor ys = {y.data(), is_f32 ? DType::kF32 : DType::kBF16, {rows, outputs}};
    const size_t uses = rows >= 512 ? std::min<size_t>(ring.size(), 2) : ring.size();
    std::vector<double> read, dots, times;
    for (int round = 0; round < 5; ++round) {
      const MachineSpeed speed = MeasureMachineSpeed(cpu).value();
      read.push_back(speed.read_bandwidth);
      dots.push_back(speed.matmul_rate);
      times.push_back(Seconds([&] {
                        for (size_t i = 0; i < uses; ++i)
                          MatMul(cpu, ys, xs, ring[i], nullptr, scratch);
                      }) /
                      static_cast<double>(uses));
    }
    const double bytes = static_cast<double>(ring[0].bytes());
    const double operations = 2.0 * static_cast<double>(rows * outputs * inputs);
    const double time = Median(times);
    const double best = *std::min_element(times.begin(), times.end());
    std::printf(
        "%-7s N %5ld K %4ld M %3ld: %9.1f us  %5.1f GB/s (%5.1f %% of read %4.1f)  %6.1f Gop/s "
        "(%5.1f %% of "
        "dots %5.1f; best %5.1f %%)\n",
        held.name.c_str(), outputs, inputs, rows, time * 1e6, bytes / time / 1e9,
        100 * bytes / time / Median(read), Median(read) / 1e9, operations / time / 1e9,
        100 * operations / time / Median(dots), Median(dots) / 1e9,
        100 * operations / best / Median(dots));
    std::fflush(stdout);
  }
}

void BenchAttention(const CpuContext& cpu, int query_heads, int kv_heads, int head_dim, int context,
                    int rows) {
  constexpr int kLayers = 16;
  const KvLayout layout = {kv_heads, head_dim, DType::kBF16};
  const int pages = (context + kPageTokens - 1) / kPageTokens;
  const size_t bytes = static_cast<size_t>(kLayers * pages * layout.page_bytes());
  Buffer memory = Buffer::Allocate(bytes).value();
  for (size_t i = 0; i < bytes / 2; ++i)
    memory.as<uint16_t>()[i] = static_cast<uint16_t>(0x3c00 | (i * 7 & 0x807f));
  Batch batch;
  for (int row = 0; row < rows; ++row) {
    batch.tokens.push_back(0);
    batch.positions.push_back(context - rows + row);
  }
  for (int page = 0; page < pages; ++page) batch.pages.push_back(page);
  batch.sequence_offsets = {0, rows};
  batch.page_offsets = {0, pages};
  const AttentionScratch scratch =
      AttentionScratch::Allocate(cpu.pool->threads(), query_heads, head_dim, context).value();
  const int64_t width = int64_t{query_heads} * head_dim;
  std::vector<uint16_t> q(static_cast<size_t>(rows * width), 0x3c00), out(q);
  std::vector<double> read, dots, times;
  for (int round = 0; round < 5; ++round) {
    const MachineSpeed speed = MeasureMachineSpeed(cpu).value();
    read.push_back(speed.read_bandwidth);
    dots.push_back(speed.matmul_rate);
    times.push_back(Seconds([&] {
      for (int layer = 0; layer < kLayers; ++layer) {
        const KvLayer pages_of = {
            layout, memory.as<uint8_t>() + layer * pages * layout.page_bytes(), pages};
        Attention(cpu, {out.data(), DType::kBF16, {rows, width}},
                  {q.data(), DType::kBF16, {rows, width}}, pages_of, batch,
                  {query_heads, 0.125f, 0, 0}, scratch);
      }
    }));
  }
  const double visible = (2.0 * context - rows + 1) / 2 * rows;  // (query, key) pairs
  const double operations = 4.0 * visible * static_cast<double>(width) * kLayers;
  const double time = Median(times);
  std::printf(
      "attention %d/%d heads of %d, %d rows at %d: %.2f ms for 16 layers, %.1f GB/s (%.0f %% of "
      "read), "
      "%.1f Gop/s (%.0f %% of dots)\n",
      query_heads, kv_heads, head_dim, rows, context, time * 1e3,
      static_cast<double>(bytes) / time / 1e9,
      100 * static_cast<double>(bytes) / time / Median(read), operations / time / 1e9,
      100 * operations / time / Median(dots));
  std::fflush(stdout);
}

/// Of that name, or the fastest.
InstructionSet SetOf(const std::string& name) {
  const CpuWords words = ReadCpuWords();
  const std::vector<InstructionSet> sets = InstructionSetsOf(words).value();
  for (const InstructionSet set : sets) {
    if (NameOf(set) == name) return set;
  }
  if (name.empty()) return FastestOf(sets, words);
  std::fprintf(stderr, "kernel_bench: this machine has no %s\n", name.c_str());
  std::exit(1);
}

void Main(int threads, const std::string& only, const std::string& set) {
  ThreadPool pool(threads > 0 ? threads : UsableCores());
  const CpuContext cpu = {&pool, SetOf(set)};
  const MachineSpeed speed = MeasureMachineSpeed(cpu).value();
  std::printf("%s, %d threads of %s: raw read %.1f GB/s, bf16 dots %.0f Gop/s\n", CpuName().c_str(),
              pool.threads(), std::string(NameOf(cpu.instructions)).c_str(),
              speed.read_bandwidth / 1e9, speed.matmul_rate / 1e9);
  const bool all = only.empty() || only == "all";
  for (const Held& held : kHeld) {
    if (!all && only != held.name) continue;
    for (const auto& [outputs, inputs] : kShapes) BenchMatMul(cpu, held, outputs, inputs);
  }
  if (!all && only != "attention") return;
  for (const int context : {1024, 4096, 16384}) BenchAttention(cpu, 32, 8, 64, context, 1);
  for (const int context : {512, 2048}) BenchAttention(cpu, 32, 8, 64, context, 512);
  BenchAttention(cpu, 9, 3, 64, 1024, 1);
  BenchAttention(cpu, 9, 3, 64, 1024, 512);
}

}  // namespace
}  // namespace neurogrid

int main(int argc, char** argv) {
  neurogrid::Main(argc > 1 ? std::atoi(argv[1]) : 0, argc > 2 ? argv[2] : "",
                  argc > 3 ? argv[3] : "");
  return 0;
}
