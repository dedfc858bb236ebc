// Python's arithmetic over template values; integers are 64 bits and refuse to overflow.
#include <cmath>

#include "absl/strings/str_cat.h"
#include "engine/text/jinja_ops.h"

namespace neurogrid::jinja {
namespace {

absl::Status Overflow() {
  return absl::InvalidArgumentError(
      "integer beyond 64 bits, which chat templates may not use here");
}

absl::Status ZeroDivision(absl::string_view what) { return absl::InvalidArgumentError(what); }

absl::string_view Sign(Arithmetic op) {
  switch (op) {
    case Arithmetic::kAdd:
      return "+";
    case Arithmetic::kSubtract:
      return "-";
    case Arithmetic::kMultiply:
      return "*";
    case Arithmetic::kDivide:
      return "/";
    case Arithmetic::kFloorDivide:
      return "//";
    case Arithmetic::kModulo:
      return "%";
    case Arithmetic::kPower:
      return "** or pow()";
  }
  return "";
}

absl::Status Unsupported(Arithmetic op, const Value& a, const Value& b) {
  return TypeError(absl::StrCat("unsupported operand type(s) for ", Sign(op), ": '", a.type_name(),
                                "' and '", b.type_name(), "'"));
}

absl::StatusOr<Value> IntegerPower(int64_t base, int64_t exponent) {
  int64_t result = 1;
  int64_t square = base;
  for (; exponent > 0; exponent >>= 1) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(result, square, &result)) return Overflow();
    if (exponent > 1 && __builtin_mul_overflow(square, square, &square)) return Overflow();
  }
  return Value::Int(result);
}

absl::StatusOr<Value> FloatPower(double base, double exponent) {
  if (base == 0 && exponent < 0) {
    return ZeroDivision("0.0 cannot be raised to a negative power");
  }
  if (base < 0 && std::isfinite(exponent) && exponent != std::floor(exponent)) {
    return absl::InvalidArgumentError("complex numbers are not supported in chat templates");
  }
  const double power = std::pow(base, exponent);
  if (std::isinf(power) && std::isfinite(base) && std::isfinite(exponent)) {
    return absl::InvalidArgumentError("Numerical result out of range");
  }
  return Value::Float(power);
}

/// Python: the remainder has the sign of the divisor.
double FloatModulo(double a, double b) {
  double remainder = std::fmod(a, b);
  if (remainder != 0 && (remainder < 0) != (b < 0)) remainder += b;
  return remainder == 0 ? std::copysign(0.0, b) : remainder;
}

double FloatFloorDivide(double a, double b) {
  double remainder = std::fmod(a, b);
  double quotient = (a - remainder) / b;
  if (remainder != 0 && (remainder < 0) != (b < 0)) quotient -= 1;
  if (quotient == 0) return std::copysign(0.0, a / b);
  double whole = std::floor(quotient);
  if (quotient - whole > 0.5) whole += 1;
  return whole;
}

absl::StatusOr<Value> ComputeIntegers(Arithmetic op, int64_t a, int64_t b) {
  int64_t result = 0;
  switch (op) {
    case Arithmetic::kAdd:
      if (__builtin_add_overflow(a, b, &result)) return Overflow();
      return Value::Int(result);
    case Arithmetic::kSubtract:
      if (__builtin_sub_overflow(a, b, &result)) return Overflow();
      return Value::Int(result);
    case Arithmetic::kMultiply:
      if (__builtin_mul_overflow(a, b, &result)) return Overflow();
      return Value::Int(result);
    case Arithmetic::kDivide:
      if (b == 0) return ZeroDivision("division by zero");
      return Value::Float(static_cast<double>(static_cast<long double>(a) / b));
    case Arithmetic::kFloorDivide:
      if (b == 0) return ZeroDivision("integer division or modulo by zero");
      if (b == -1) return ComputeIntegers(Arithmetic::kSubtract, 0, a);
      return Value::Int(a / b - ((a % b != 0 && (a % b < 0) != (b < 0)) ? 1 : 0));
    case Arithmetic::kModulo:
      if (b == 0) return ZeroDivision("integer modulo by zero");
      if (b == -1) return Value::Int(0);
      result = a % b;
      return Value::Int(result != 0 && (result < 0) != (b < 0) ? result + b : result);
    case Arithmetic::kPower:
      if (b < 0) return FloatPower(static_cast<double>(a), static_cast<double>(b));
      return IntegerPower(a, b);
  }
  return Overflow();
}

absl::StatusOr<Value> ComputeFloats(Arithmetic op, double a, double b) {
  switch (op) {
    case Arithmetic::kAdd:
      return Value::Float(a + b);
    case Arithmetic::kSubtract:
      return Value::Float(a - b);
    case Arithmetic::kMultiply:
      return Value::Float(a * b);
    case Arithmetic::kDivide:
      if (b == 0) return ZeroDivision("float division by zero");
      return Value::Float(a / b);
    case Arithmetic::kFloorDivide:
      if (b == 0) return ZeroDivision("float floor division by zero");
      return Value::Float(FloatFloorDivide(a, b));
    case Arithmetic::kModulo:
      if (b == 0) return ZeroDivision("float modulo");
      return Value::Float(FloatModulo(a, b));
    case Arithmetic::kPower:
      return FloatPower(a, b);
  }
  return Overflow();
}

absl::StatusOr<Value> AddStrings(Runtime& runtime, const Value& a, const Value& b) {
  const bool markup = a.str().markup || b.str().markup;
  NG_RETURN_IF_ERROR(runtime.Reserve(static_cast<double>(a.bytes().size() + b.bytes().size())));
  Text sum;
  for (const Value* side : {&a, &b}) {
    if (markup && !side->str().markup) {
      NG_ASSIGN_OR_RETURN(const Text escaped, EscapeHtml(runtime, side->text()));
      sum.Append(escaped);
    } else {
      sum.Append(side->text());
    }
  }
  return runtime.NewString(std::move(sum), markup);
}

absl::StatusOr<Value> AddSequences(Runtime& runtime, const Value& a, const Value& b) {
  std::vector<Value> items = a.items();
  items.insert(items.end(), b.items().begin(), b.items().end());
  return a.is_list() ? runtime.NewList(std::move(items)) : runtime.NewTuple(std::move(items));
}

absl::StatusOr<Value> Repeat(Runtime& runtime, const Value& sequence, int64_t times) {
  const double count = static_cast<double>(std::max<int64_t>(times, 0));
  if (sequence.is_string()) {
    NG_RETURN_IF_ERROR(runtime.Reserve(count * static_cast<double>(sequence.bytes().size())));
    NG_RETURN_IF_ERROR(runtime.Charge(sequence.bytes().empty() ? 1 : times / 64));
    Text text;
    if (!sequence.bytes().empty()) {
      for (int64_t i = 0; i < times; ++i) text.Append(sequence.text());
    }
    return runtime.NewString(std::move(text), sequence.str().markup);
  }
  const double slots = count * static_cast<double>(sequence.items().size());
  NG_RETURN_IF_ERROR(runtime.Reserve(slots * sizeof(Value)));
  NG_RETURN_IF_ERROR(runtime.Charge(static_cast<int64_t>(slots) / 8));
  std::vector<Value> items;
  if (!sequence.items().empty()) {
    for (int64_t i = 0; i < times; ++i) {
      items.insert(items.end(), sequence.items().begin(), sequence.items().end());
    }
  }
  return sequence.is_list() ? runtime.NewList(std::move(items))
                            : runtime.NewTuple(std::move(items));
}

bool IsRepeatable(const Value& value) {
  return value.is_string() || value.is_list() || value.is_tuple();
}

}  // namespace

absl::StatusOr<Value> Compute(Runtime& runtime, Arithmetic op, const Value& a, const Value& b) {
  NG_RETURN_IF_ERROR(runtime.Charge());
  if (a.is_undefined()) return UndefinedError(a);
  if (op == Arithmetic::kModulo && a.is_string()) {
    if (!a.str().markup) return FormatPercent(runtime, a, b);
    return absl::InvalidArgumentError(
        "formatting of escaped text is not supported in chat templates");
  }
  if (b.is_undefined()) return UndefinedError(b);
  if (a.is_integral() && b.is_integral()) return ComputeIntegers(op, a.integer(), b.integer());
  if (a.is_number() && b.is_number()) return ComputeFloats(op, a.number(), b.number());
  if (op == Arithmetic::kAdd) {
    if (a.is_string() && b.is_string()) return AddStrings(runtime, a, b);
    if ((a.is_list() && b.is_list()) || (a.is_tuple() && b.is_tuple())) {
      return AddSequences(runtime, a, b);
    }
    if (IsRepeatable(a)) {
      return TypeError(absl::StrCat("can only concatenate ", a.type_name(), " (not \"",
                                    b.type_name(), "\") to ", a.type_name()));
    }
  }
  if (op == Arithmetic::kMultiply) {
    if (IsRepeatable(a) && b.is_integral()) return Repeat(runtime, a, b.integer());
    if (IsRepeatable(b) && a.is_integral()) return Repeat(runtime, b, a.integer());
  }
  return Unsupported(op, a, b);
}

absl::StatusOr<Value> Negate(const Value& value) {
  if (value.is_undefined()) return UndefinedError(value);
  if (value.is_float()) return Value::Float(-value.number());
  if (value.is_integral()) return ComputeIntegers(Arithmetic::kSubtract, 0, value.integer());
  return TypeError(absl::StrCat("bad operand type for unary -: '", value.type_name(), "'"));
}

absl::StatusOr<Value> Positive(const Value& value) {
  if (value.is_undefined()) return UndefinedError(value);
  if (value.is_float()) return value;
  if (value.is_integral()) return Value::Int(value.integer());
  return TypeError(absl::StrCat("bad operand type for unary +: '", value.type_name(), "'"));
}

}  // namespace neurogrid::jinja
