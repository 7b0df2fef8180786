// Numbers of 16 bits as they are stored; kernels compute in float. A number is widened exactly and rounded to the
// nearest, ties to even; NaN stays NaN. In integers and selections throughout, and by assignment, which needs no
// temporary object: loops become vector code.

namespace gdsl {

struct bf16 {
    uint16_t bits;
    operator f32() const { return as_float((uint32_t)bits << 16); }
    void operator=(f32 x) {
        const uint32_t wide = as_bits(x), rounded = (wide + 0x7fffu + (wide >> 16 & 1u)) >> 16;
        bits = (uint16_t)(x == x ? rounded : 0x7fc0u);
    }
};

struct f16 {
    uint16_t bits;
    operator f32() const {
        // Sign, exponent and digits in float's places; the exponent's bias is 127 here and 15 there.
        const uint32_t wide = (uint32_t)(int16_t)bits << 13 & 0x8fffe000u, top = 31u << 23;
        const uint32_t scaled = as_bits(as_float(wide) * 0x1p112f);
        return as_float((wide & top) == top ? scaled | 0x7f800000u : scaled);
    }
    void operator=(f32 x) {
        const uint32_t wide = as_bits(x) & 0x7fffffffu, sign = as_bits(x) >> 16 & 0x8000u;
        // A sum with 1/2 is a multiple of the smallest number.
        const uint32_t subnormal = as_bits(as_float(wide) + 0.5f) - as_bits(0.5f);
        const uint32_t normal = (wide - (112u << 23) + 0xfffu + (wide >> 13 & 1u)) >> 13;
        const uint32_t finite = wide < 113u << 23 ? subnormal : normal;
        const uint32_t found = wide < 0x47800000u && finite < 0x7c00u ? finite : 0x7c00u;
        bits = (uint16_t)((x == x ? found : 0x7e00u) | sign);
    }
};

}  // namespace gdsl
