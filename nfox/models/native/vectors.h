// Vectors of floats, whatever the processor has: 16 numbers with AVX-512, 8 with AVX, else 4.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
#include <immintrin.h>
constexpr int LANES = 16;
#elif defined(__AVX__)
#include <immintrin.h>
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif

typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES)));
typedef int16_t Shorts __attribute__((vector_size(2 * LANES)));
typedef int8_t SignedBytes __attribute__((vector_size(LANES)));

template <class Vector, class Number>
inline Vector load(const Number* numbers) {
    Vector vector;
    memcpy(&vector, numbers, sizeof vector);
    return vector;
}

template <class Vector, class Number>
inline void store(Number* numbers, Vector vector) {
    memcpy(numbers, &vector, sizeof vector);
}

// Keeps the compiler from loading words again where they are used.
inline void keep_in_register(Words& words) {
#if defined(__AVX512F__)
    asm("" : "+v"(words));
#endif
}

inline Floats all(float number) { return number - Floats{}; }

// bfloat16 numbers as floats, exactly.
inline Floats widened(const uint16_t* numbers) {
#if defined(__AVX512F__)
    return (Floats)_mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)load<Halves>(numbers)), 16);
#else
    return (Floats)(__builtin_convertvector(load<Halves>(numbers), Words) << 16);
#endif
}

inline Floats widened(const float* numbers) { return load<Floats>(numbers); }

// A bfloat16 number by its bits.
inline float from_bfloat16(int bits) {
    float number;
    bits <<= 16;
    memcpy(&number, &bits, sizeof number);
    return number;
}

// Finite numbers in half precision as floats, exactly.
inline Floats from_half_precision(const uint16_t* numbers) {
#if defined(__AVX512F__)
    return (Floats)_mm512_cvtph_ps((__m256i)load<Halves>(numbers));
#elif defined(__AVX__) && defined(__F16C__)
    return (Floats)_mm256_cvtph_ps((__m128i)load<Halves>(numbers));
#else
    const Words bits = __builtin_convertvector(load<Halves>(numbers), Words);
    const Floats size = (Floats)((bits & 0x7fff) << 13) * 0x1p112f;  // the exponents differ by 112
    return (Floats)((Words)size | (bits & 0x8000) << 16);
#endif
}

// The upper halves are floats rounded to the nearest bfloat16 numbers; NaN stays NaN.
inline Words in_bfloat16(Floats numbers) {
    const Words bits = (Words)numbers;
    const Words rounded = (bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff0000u;
    const Words is_nan = (Words)(numbers != numbers);
    return (rounded & ~is_nan) | (0x7fc00000u & is_nan);
}

inline Halves narrowed(Floats numbers) {
    return __builtin_convertvector(in_bfloat16(numbers) >> 16, Halves);
}

// Writes numbers rounded to bfloat16.
inline void put(uint16_t* place, Floats numbers) { store(place, narrowed(numbers)); }
inline void put(float* place, Floats numbers) { store(place, (Floats)in_bfloat16(numbers)); }

// The bits of bfloat16 numbers without their signs.
inline Ints sizes_of(const uint16_t* numbers) {
    return __builtin_convertvector(load<Halves>(numbers), Ints) & 0x7fff;
}
inline Ints sizes_of(const float* numbers) { return (Ints)(load<Words>(numbers) >> 16) & 0x7fff; }

// Products of pairs of bfloat16 numbers: a pair of weights is multiplied in so many parts, each with a
// factor. Where the processor multiplies bfloat16 numbers, the part and the factor are pairs of them;
// else they are floats, and so is what enters a product, rounded to bfloat16. The order of the sums is
// the same for every caller, so that a row's result does not depend on the rows beside it.
#if defined(__AVX512BF16__)
constexpr int PARTS = 1;
typedef uint16_t Input;
typedef Words Part;
typedef uint32_t Factor;

inline Part part_of(Words weights, int) { return weights; }

inline Floats add_products(Floats total, Part part, Factor factor) {
    return (Floats)_mm512_dpbf16_ps((__m512)total, (__m512bh)part,
                                    (__m512bh)_mm512_set1_epi32((int)factor));
}
#else
constexpr int PARTS = 2;
typedef float Input;
typedef Floats Part;
typedef float Factor;

inline Part part_of(Words weights, int index) {
    return (Floats)(index ? weights & 0xffff0000u : weights << 16);
}

inline Floats add_products(Floats total, Part part, Factor factor) { return part * factor + total; }
#endif

// Writes the columns of LANES rows, `stride` words apart, each into its own row of LANES words.
inline void transpose(const uint32_t* rows, size_t stride, uint32_t* columns) {
#if defined(__AVX512F__)
    __m512i a[16], b[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) a[i] = _mm512_loadu_si512(rows + i * stride);
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; j++) {
            a[i + 2 * j] = _mm512_unpacklo_epi64(b[i + j], b[i + j + 2]);
            a[i + 2 * j + 1] = _mm512_unpackhi_epi64(b[i + j], b[i + j + 2]);
        }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {  // a[i + 4 j]: column 4 k + i of rows 4 j to 4 j + 3 in part k
        const __m512i low = _mm512_shuffle_i32x4(a[i], a[i + 4], 0x88);
        const __m512i high = _mm512_shuffle_i32x4(a[i], a[i + 4], 0xdd);
        const __m512i low2 = _mm512_shuffle_i32x4(a[i + 8], a[i + 12], 0x88);
        const __m512i high2 = _mm512_shuffle_i32x4(a[i + 8], a[i + 12], 0xdd);
        _mm512_storeu_si512(columns + i * 16, _mm512_shuffle_i32x4(low, low2, 0x88));
        _mm512_storeu_si512(columns + (i + 8) * 16, _mm512_shuffle_i32x4(low, low2, 0xdd));
        _mm512_storeu_si512(columns + (i + 4) * 16, _mm512_shuffle_i32x4(high, high2, 0x88));
        _mm512_storeu_si512(columns + (i + 12) * 16, _mm512_shuffle_i32x4(high, high2, 0xdd));
    }
#else
    for (int row = 0; row < LANES; row++)
        for (int column = 0; column < LANES; column++)
            columns[column * LANES + row] = rows[row * stride + column];
#endif
}

// Pairs of integers of 16 bits from pairs of signed bytes.
inline Words from_bytes(const uint16_t* bytes) {
#if defined(__AVX512BW__)
    return (Words)_mm512_cvtepi8_epi16((__m256i)load<Halves>(bytes));
#else
    const Words words = __builtin_convertvector(load<Halves>(bytes), Words);
    const Words low = (Words)((Ints)(words << 24) >> 24), high = (Words)((Ints)(words << 16) >> 24);
    return (low & 0xffff) | (high << 16);
#endif
}

// total + the products of two pairs of integers of 16 bits in every lane.
inline Ints add_pairs(Ints total, Words weights, uint32_t pair) {
#if defined(__AVX512VNNI__)
    return (Ints)_mm512_dpwssd_epi32((__m512i)total, (__m512i)weights, _mm512_set1_epi32((int)pair));
#elif defined(__AVX512BW__)
    return total + (Ints)_mm512_madd_epi16((__m512i)weights, _mm512_set1_epi32((int)pair));
#elif defined(__AVXVNNI__) && !defined(__AVX512F__)
    return (Ints)_mm256_dpwssd_avx_epi32((__m256i)total, (__m256i)weights,
                                         _mm256_set1_epi32((int)pair));
#elif defined(__AVX2__) && !defined(__AVX512F__)
    return total + (Ints)_mm256_madd_epi16((__m256i)weights, _mm256_set1_epi32((int)pair));
#else
    const Ints low = (Ints)(weights << 16) >> 16, high = (Ints)weights >> 16;
    return total + low * (int16_t)pair + high * ((int32_t)pair >> 16);
#endif
}

// total + the products of four numbers from 0 to 15 and of four signed bytes in every lane.
inline Ints add_bytes(Ints total, Words weights, uint32_t bytes) {
#if defined(__AVX512VNNI__)
    return (Ints)_mm512_dpbusd_epi32((__m512i)total, (__m512i)weights, _mm512_set1_epi32((int)bytes));
#elif defined(__AVX512BW__)
    const __m512i pairs = _mm512_maddubs_epi16((__m512i)weights, _mm512_set1_epi32((int)bytes));
    return total + (Ints)_mm512_madd_epi16(pairs, _mm512_set1_epi16(1));
#elif defined(__AVXVNNI__) && !defined(__AVX512F__)
    return (Ints)_mm256_dpbusd_avx_epi32((__m256i)total, (__m256i)weights,
                                         _mm256_set1_epi32((int)bytes));
#elif defined(__AVX2__) && !defined(__AVX512F__)
    const __m256i pairs = _mm256_maddubs_epi16((__m256i)weights, _mm256_set1_epi32((int)bytes));
    return total + (Ints)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
#else
    for (int byte = 0; byte < 32; byte += 8)
        total = total + (Ints)((weights >> byte) & 15) * (int8_t)(bytes >> byte);
    return total;
#endif
}

// The nearest integers to numbers below 2^22.
inline Ints rounded(Floats numbers) {
    return (Ints)(numbers + 12582912.0f) - 0x4b400000;  // adding 1.5 * 2^23 rounds
}

inline int largest(Ints numbers) {
#if defined(__AVX512F__)
    return _mm512_reduce_max_epi32((__m512i)numbers);
#else
    int most = numbers[0];
    for (int lane = 1; lane < LANES; lane++) most = numbers[lane] > most ? numbers[lane] : most;
    return most;
#endif
}

inline int sum(Ints numbers) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_epi32((__m512i)numbers);
#else
    int total = 0;
    for (int lane = 0; lane < LANES; lane++) total += numbers[lane];
    return total;
#endif
}

inline float sum(Floats numbers) {
    float total = 0;
    for (int lane = 0; lane < LANES; lane++) total += numbers[lane];
    return total;
}

inline float largest(Floats numbers) {
    float most = numbers[0];
    for (int lane = 1; lane < LANES; lane++) most = numbers[lane] > most ? numbers[lane] : most;
    return most;
}

inline Floats larger(Floats a, Floats b) { return a > b ? a : b; }
inline Floats smaller(Floats a, Floats b) { return a < b ? a : b; }

// e^x, to the last bits of a float (Cephes' polynomial); 0 below -87, and NaN stays NaN.
inline Floats exponential(Floats x) {
    const Floats given = x;
    x = smaller(larger(x, all(-87.0f)), all(88.0f));
    const Floats scaled = x * 1.44269504f + 12582912.0f;  // adding 1.5 * 2^23 rounds
    const Ints exponent = (Ints)scaled - 0x4b400000;
    const Floats whole = scaled - 12582912.0f;
    x = x - whole * 0.693359375f;
    x = x + whole * 2.12194440e-4f;
    Floats series = all(1.9875691500e-4f);
    series = series * x + 1.3981999507e-3f;
    series = series * x + 8.3334519073e-3f;
    series = series * x + 4.1665795894e-2f;
    series = series * x + 1.6666665459e-1f;
    series = series * x + 5.0000001201e-1f;
    series = series * x * x + x + 1.0f;
    const Floats power = series * (Floats)((exponent + 127) << 23);
    const Floats bounded = given < -87.0f ? Floats{} : power;
    return given != given ? given : bounded;
}

inline Floats hyperbolic_tangent(Floats x) { return 1.0f - 2.0f / (exponential(2.0f * x) + 1.0f); }
