// Numbers of 16 bits as they are stored; kernels compute in float. Rounded to the nearest, ties to even; NaN stays NaN.

namespace gdsl {

struct bf16 {
    uint16_t bits;
    operator f32() const { return as_float((uint32_t)bits << 16); }
};

struct f16 {
    _Float16 value;
    operator f32() const { return (f32)value; }
};

}  // namespace gdsl

